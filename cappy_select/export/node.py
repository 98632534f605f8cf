"""Attention as one node of onnxruntime's, put into a model while torch traces it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Replaced = dict[tuple[Any, str], Callable[..., Any]]  # a module's methods, by name


@dataclass
class Given:
    """What all layers of a run share."""

    mask: torch.Tensor | None = None  # int32[rows, tokens]: 1 for a token, 0 for padding
    shared: dict[str, torch.Tensor] = field(default_factory=dict)  # made by the first layer that needs it


class Attention(torch.autograd.Function):
    """softmax(query @ key * scale + bias) @ value, head by head: [rows, tokens, heads * width] each.

    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MultiHeadAttention
    """

    @staticmethod
    def forward(
        _: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor,
        bias: torch.Tensor | None, heads: int, scale: float,
    ) -> torch.Tensor:  # fmt: skip
        return torch.zeros_like(query)  # only the node that is written counts

    @staticmethod
    def symbolic(g: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, heads: int, scale: float) -> Any:
        none = g.op("prim::Constant")  # torch's way to write an input that is left out
        none.setType(torch._C.OptionalType.ofTensor())
        given = [query, key, value, none, mask] + ([] if bias is None or bias.node().mustBeNone() else [bias])
        node = g.op("com.microsoft::MultiHeadAttention", *given, num_heads_i=heads, scale_f=scale)
        return node.setType(query.type())


class Turned(torch.autograd.Function):
    """Rotary positions: the halves of each head's width are turned against each other, by the tables' angles.

    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.RotaryEmbedding
    """

    @staticmethod
    def forward(
        _: Any, states: torch.Tensor, start: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, heads: int
    ) -> torch.Tensor:
        return torch.zeros_like(states)

    @staticmethod
    def symbolic(g: Any, states: Any, start: Any, cosines: Any, sines: Any, heads: int) -> Any:
        node = g.op("com.microsoft::RotaryEmbedding", states, start, cosines, sines, num_heads_i=heads)
        return node.setType(states.type())


def distances(window: int) -> torch.Tensor:
    """A query's place less its key's, from the largest down: int64[2 * window]."""
    return torch.arange(window - 1, -window - 1, -1)


def by_distance(values: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """For [rows, tokens, ..] of states, what `values`, one for each of `distances`, has for each [query, key]."""
    places = torch.arange(states.shape[1])
    return values[places[None, :] - places[:, None] + len(values) // 2 - 1]

"""DeBERTa's attention in terms of `attention.Attention`: what its distances add becomes the additive bias.

A query meets a key's states, the key of their distance (c2p), and the key the query of their distance (p2c). As torch
traces it, both products are gathered by an index for each pair of tokens, in each head. Here each row is multiplied
with the embeddings of the distances that occur, in order, and the results are read on with rows that are one shorter:
then the wanted ones are below each other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cappy_select.export.node import Attention, Given, Replaced, distances


class _Projection(nn.Module):
    """A linear layer whose matrix is stored once, however often it is used."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.kernel = nn.Parameter(weight.detach().T.contiguous())
        self.bias = None if bias is None else nn.Parameter(bias.detach())

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        projected = states @ self.kernel
        return projected if self.bias is None else projected + self.bias


class _Embeddings(nn.Module):
    """The embeddings of those distances that occur among so many tokens: [2 * tokens, hidden]; one is not needed."""

    def __init__(self, table: torch.Tensor, places: torch.Tensor) -> None:
        """`places` has the row of the table for each of `distances(window)`."""
        super().__init__()
        self.table = nn.Parameter(table.detach())
        self.register_buffer("down", places)
        self.register_buffer("up", places.flip(0).roll(-1))

    def forward(self, tokens: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        middle = len(order) // 2
        return nn.functional.embedding(order[middle - tokens : middle + tokens], self.table)


def deberta(model: Any, given: Given, window: int) -> Replaced:
    """Of version 1: one matrix for query, key and value, head by head; distances as they are."""
    encoder, replaced = model.deberta.encoder, Replaced()
    if encoder.relative_attention:
        most = encoder.max_relative_positions
        encoder.embeddings = _Embeddings(encoder.get_rel_embedding(), distances(window).clamp(-most, most - 1) + most)
    for module in (layer.attention.self for layer in encoder.layer):
        if module.talking_head:
            return Replaced()
        matrices = module.in_proj.weight.unflatten(0, (module.num_attention_heads, 3, -1)).unbind(1)
        biases = module.q_bias, None, module.v_bias
        states = [_Projection(matrix.flatten(0, 1), bias) for matrix, bias in zip(matrices, biases, strict=True)]
        kinds = module.pos_att_type if encoder.relative_attention else ()
        of_distance = {"c2p": "pos_proj", "p2c": "pos_q_proj"}
        others = {kind: getattr(module, of_distance[kind]) for kind in kinds}
        replaced[module, "forward"] = _attention(module, encoder, states, _projections(others), given)
    return replaced


def deberta_v2(model: Any, given: Given, window: int) -> Replaced:
    """Of versions 2 and 3: distances in buckets, often projected by the matrices of the states."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    encoder, replaced = model.deberta.encoder, Replaced()
    if encoder.relative_attention:
        table, places = encoder.get_rel_embedding(), distances(window)
        if encoder.position_buckets > 0:
            places = make_log_bucket_position(places, encoder.position_buckets, encoder.max_relative_positions).long()
        encoder.embeddings = _Embeddings(table, (places + len(table) // 2).clamp(0, len(table) - 1))
    for module in (layer.attention.self for layer in encoder.layer):
        linear = module.query_proj, module.key_proj, module.value_proj
        states = [_Projection(each.weight, each.bias) for each in linear]
        kinds = [kind for kind in ("c2p", "p2c") if encoder.relative_attention and kind in module.pos_att_type]
        if module.share_att_key:
            others = {"c2p": states[1], "p2c": states[0]}
        else:
            of_distance = {"c2p": "pos_key_proj", "p2c": "pos_query_proj"}
            others = _projections({kind: getattr(module, of_distance[kind]) for kind in kinds})
        replaced[module, "forward"] = _attention(module, encoder, states, {kind: others[kind] for kind in kinds}, given)
    return replaced


def _projections(layers: Mapping[str, Any]) -> dict[str, nn.Module]:
    return {kind: _Projection(layer.weight, layer.bias) for kind, layer in layers.items()}


def _attention(
    module: Any, encoder: Any, states: Sequence[nn.Module], others: Mapping[str, nn.Module], given: Given
) -> Callable[..., Any]:
    heads = module.num_attention_heads
    scale = 1 / math.sqrt(module.all_head_size // heads * (1 + len(others)))
    module.written = nn.ModuleList([*states, *others.values()])  # the tracer takes parameters from modules only

    def embedded(hidden: torch.Tensor, order: str) -> torch.Tensor:
        if order not in given.shared:
            given.shared[order] = encoder.embeddings(hidden.shape[1], getattr(encoder.embeddings, order))
        return given.shared[order]

    def forward(hidden: torch.Tensor, _mask: Any, *_args: Any, **_: Any) -> tuple[torch.Tensor, None]:
        query, key, value = (projection(hidden) for projection in states)
        biases = []
        if "c2p" in others:
            biases.append(_by_distance(query, others["c2p"](embedded(hidden, "down")) * scale, heads))
        if "p2c" in others:
            biases.append(_by_distance(key, others["p2c"](embedded(hidden, "up")) * scale, heads).transpose(-1, -2))
        bias = functools.reduce(torch.add, biases) if biases else None
        return Attention.apply(query, key, value, given.mask, bias, heads, scale), None

    return forward


def _by_distance(rows: torch.Tensor, embedded: torch.Tensor, heads: int) -> torch.Tensor:
    """Each of [rows, tokens, heads * width] times its distances' embeddings: [rows, heads, tokens, tokens]."""
    tokens = rows.shape[1]
    products = _in_heads(rows, heads) @ _in_heads(embedded, heads).transpose(-1, -2)  # [.., tokens, 2 * tokens]
    flat = products.reshape(*products.shape[:2], -1)[..., tokens - 1 : tokens - 1 + tokens * (2 * tokens - 1)]
    return flat.reshape(*products.shape[:2], tokens, 2 * tokens - 1)[..., :tokens]


def _in_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    return states.view(*states.shape[:-1], heads, -1).transpose(-2, -3)  # [.., heads, tokens, width]

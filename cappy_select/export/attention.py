"""Attention as one node, for encoders whose attention onnxruntime's optimizer does not recognise.

It knows BERT's, as torch traces it. MPNet adds a bias by distance, DeBERTa products of its states with embeddings of
distances, ModernBERT turns queries and keys and looks near in most layers. While such a model is traced, its attention
modules run what is written here instead: the projections, then onnxruntime's `MultiHeadAttention` with what is
particular as its additive bias.

What depends on nothing but the distance of two tokens is computed here, by transformers' own code, and looked up in the
graph by distance, so that no logarithm that rounds otherwise puts a distance into another bucket.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

_FAR = -10_000.0  # added to what is not looked at; `MultiHeadAttention` takes the same for padding


class _Attention(torch.autograd.Function):
    """softmax(query @ key * scale + bias) @ value, for all heads."""

    @staticmethod
    def forward(
        _: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor,
        bias: torch.Tensor | None, heads: int, scale: float,
    ) -> torch.Tensor:  # fmt: skip
        return torch.zeros_like(query)  # [rows, tokens, width]; only the node that is written counts

    @staticmethod
    def symbolic(
        g: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, heads: int, scale: float
    ) -> Any:
        none = g.op("prim::Constant")  # torch's way to write an input that is left out
        none.setType(torch._C.OptionalType.ofTensor())
        given = [query, key, value, none, mask] + ([] if bias is None or bias.node().mustBeNone() else [bias])
        node = g.op("com.microsoft::MultiHeadAttention", *given, num_heads_i=heads, scale_f=scale)
        return node.setType(query.type())


class _Turned(torch.autograd.Function):
    """Rotary positions: halves of each head's width are turned against each other, by the tables' angles."""

    @staticmethod
    def forward(
        _: Any, states: torch.Tensor, start: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, heads: int
    ) -> torch.Tensor:
        return torch.zeros_like(states)

    @staticmethod
    def symbolic(g: Any, states: Any, start: Any, cosines: Any, sines: Any, heads: int) -> Any:
        node = g.op("com.microsoft::RotaryEmbedding", states, start, cosines, sines, num_heads_i=heads)
        return node.setType(states.type())


@contextmanager
def one_node(model: Any, window: int) -> Iterator[Callable[[torch.Tensor], None]]:
    """While it lasts, the model's attention is traced as one node a layer, if its kind needs to be written here.

    Gives a function that takes the attention mask ([rows, tokens]), to be called before each run of the model.
    """
    rewrite = _REWRITES.get(model.config.model_type)
    given = SimpleNamespace(mask=None, shared={})
    replaced = rewrite(model, given, window) if rewrite else {}
    for (module, name), function in replaced.items():
        setattr(module, name, function)

    def start(mask: torch.Tensor) -> None:
        given.mask, given.shared = mask.to(torch.int32), {}

    try:
        yield start
    finally:
        for module, name in replaced:
            delattr(module, name)  # what the class has shows again


_Replaced = dict[tuple[Any, str], Callable[..., Any]]


def _mpnet(model: Any, given: SimpleNamespace, window: int) -> _Replaced:
    encoder = model.mpnet.encoder
    buckets = encoder.relative_position_bucket(-_distances(window))

    def position_bias(states: torch.Tensor) -> torch.Tensor:
        values = encoder.relative_attention_bias(_by_distance(buckets, states))  # [query, key, heads]
        return values.permute(2, 0, 1).unsqueeze(0)

    def attention(module: Any) -> Callable[..., Any]:
        def forward(states: torch.Tensor, _mask: Any, bias: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
            heads, width = module.num_attention_heads, module.attention_head_size
            projected = module.q(states), module.k(states), module.v(states)
            return (module.o(_Attention.apply(*projected, given.mask, bias, heads, width**-0.5)),)

        return forward

    layers: _Replaced = {(layer.attention.attn, "forward"): attention(layer.attention.attn) for layer in encoder.layer}
    return layers | {(encoder, "compute_position_bias"): position_bias}


def _modernbert(model: Any, given: SimpleNamespace, window: int) -> _Replaced:
    config, encoder = model.config, model.model
    positions = torch.arange(window).unsqueeze(0)
    tables = {}
    for kind in set(config.layer_types):
        turns = encoder.rotary_emb(torch.zeros(1), positions, kind)
        tables[kind] = [turn[0, :, : turn.shape[-1] // 2].contiguous() for turn in turns]  # its halves are equal
    near = torch.where(_distances(window).abs() <= config.sliding_window, 0.0, _FAR)

    def bias(states: torch.Tensor, kind: str) -> torch.Tensor | None:
        if kind == "full_attention":
            return None
        if kind not in given.shared:
            given.shared[kind] = _by_distance(near, states)[None, None]  # [1, 1, query, key]
        shared: torch.Tensor = given.shared[kind]
        return shared

    def attention(module: Any, kind: str) -> Callable[..., Any]:
        def forward(states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
            heads, first = config.num_attention_heads, torch.zeros(1, dtype=torch.long)
            query, key, value = module.Wqkv(states).chunk(3, dim=-1)
            query, key = (_Turned.apply(each, first, *tables[kind], heads) for each in (query, key))
            mixed = _Attention.apply(query, key, value, given.mask, bias(states, kind), heads, module.head_dim**-0.5)
            return module.Wo(mixed), None

        return forward

    return {
        (layer.attn, "forward"): attention(layer.attn, kind)
        for layer, kind in zip(encoder.layers, config.layer_types, strict=True)
    }


def _deberta(model: Any, given: SimpleNamespace, window: int) -> _Replaced:
    """Of version 1: one matrix for query, key and value, head by head; distances as they are."""
    encoder = model.deberta.encoder
    replaced: _Replaced = {}
    for layer in encoder.layer:
        module = layer.attention.self
        if module.talking_head:
            return {}
        heads = module.num_attention_heads
        matrices = module.in_proj.weight.unflatten(0, (heads, 3, -1)).unbind(1)  # [heads, width, hidden] each
        biases = module.q_bias, None, module.v_bias
        module.apart = torch.nn.ModuleList(
            _linear(matrix.flatten(0, 1), bias) for matrix, bias in zip(matrices, biases, strict=True)
        )
        tables = {}
        if module.relative_attention:
            rows = _distances(window).clamp(-module.max_relative_positions, module.max_relative_positions - 1)
            embedded = encoder.get_rel_embedding()[rows + module.max_relative_positions]
            if "c2p" in module.pos_att_type:
                tables["c2p"] = module.pos_proj(embedded)
            if "p2c" in module.pos_att_type:
                tables["p2c"] = module.pos_q_proj(embedded)
        replaced[module, "forward"] = _disentangled(module, module.apart, tables, 1 + len(module.pos_att_type), given)
    return replaced


def _deberta_v2(model: Any, given: SimpleNamespace, window: int) -> _Replaced:
    """Of versions 2 and 3: distances in buckets, often with the projections of the states themselves."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    encoder = model.deberta.encoder
    replaced: _Replaced = {}
    for layer in encoder.layer:
        module = layer.attention.self
        tables = {}
        if module.relative_attention:
            rows, span = _distances(window), module.pos_ebd_size
            if module.position_buckets > 0 and module.max_relative_positions > 0:
                rows = make_log_bucket_position(rows, module.position_buckets, module.max_relative_positions).long()
            embedded = encoder.get_rel_embedding()[(rows + span).clamp(0, 2 * span - 1)]
            if "c2p" in module.pos_att_type:
                tables["c2p"] = (module.key_proj if module.share_att_key else module.pos_key_proj)(embedded)
            if "p2c" in module.pos_att_type:
                tables["p2c"] = (module.query_proj if module.share_att_key else module.pos_query_proj)(embedded)
        projections = module.query_proj, module.key_proj, module.value_proj
        factor = 1 + ("c2p" in module.pos_att_type) + ("p2c" in module.pos_att_type)
        replaced[module, "forward"] = _disentangled(module, projections, tables, factor, given)
    return replaced


_REWRITES: dict[str, Callable[[Any, SimpleNamespace, int], _Replaced]] = {
    "mpnet": _mpnet,
    "modernbert": _modernbert,
    "deberta": _deberta,
    "deberta-v2": _deberta_v2,
}


def _disentangled(
    module: Any, projections: Any, tables: dict[str, torch.Tensor], factor: int, given: SimpleNamespace
) -> Callable[..., Any]:
    """Query with key, query with the key of their distance (c2p), key with the query of their distance (p2c).

    The tables have a row a distance, from the largest down.
    """
    heads = module.num_attention_heads
    scale = 1 / math.sqrt(module.all_head_size // heads * factor)
    # [1, heads, width, distances], the distances in the order in which a row meets them from left to right
    if "c2p" in tables:
        by_key = _transposed(tables["c2p"], heads) * scale
        module.register_buffer("by_key", by_key, persistent=False)
    if "p2c" in tables:
        by_query = _transposed(tables["p2c"].flip(0).roll(-1, 0), heads) * scale
        module.register_buffer("by_query", by_query, persistent=False)

    def forward(states: torch.Tensor, _mask: Any, *_args: Any, **_: Any) -> tuple[torch.Tensor, None]:
        query, key, value = (projection(states) for projection in projections)
        bias = None
        if "c2p" in tables:
            bias = _skewed(_in_heads(query, heads), module.by_key)
        if "p2c" in tables:
            by_keys = _skewed(_in_heads(key, heads), module.by_query).transpose(-1, -2)
            bias = by_keys if bias is None else bias + by_keys
        return _Attention.apply(query, key, value, given.mask, bias, heads, scale), None

    return forward


def _skewed(rows: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Each row times the table's columns of its distances: [rows, heads, tokens, width] -> [..., tokens, tokens].

    A gather of these would take an index for each element. A product with the 2 * tokens columns that occur does not:
    read on with rows one shorter, it has the wanted ones below each other.
    """
    tokens, middle = rows.shape[-2], table.shape[-1] // 2
    products = rows @ table[..., middle - tokens : middle + tokens]  # [..., tokens, 2 * tokens]
    outer = products.shape[:-2]
    shifted = products.reshape(*outer, -1)[..., tokens - 1 : tokens - 1 + tokens * (2 * tokens - 1)]
    return shifted.reshape(*outer, tokens, 2 * tokens - 1)[..., :tokens]


def _in_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    return states.view(*states.shape[:-1], heads, -1).transpose(-2, -3)  # [.., tokens, width] -> [.., heads, tokens, width]


def _transposed(table: torch.Tensor, heads: int) -> torch.Tensor:
    return _in_heads(table.detach(), heads).transpose(-1, -2)[None].contiguous()


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = torch.nn.Parameter(weight.detach().contiguous())
    if bias is not None:
        made.bias = torch.nn.Parameter(bias.detach())
    return made


def _distances(window: int) -> torch.Tensor:
    """Query's place less the key's, from the largest down: int64[2 * window], the last for even halves only."""
    return torch.arange(window - 1, -window - 1, -1)


def _by_distance(values: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """What a table of all distances has for those of a row's tokens: [query, key]."""
    places = torch.arange(states.shape[1])
    return values[places[None, :] - places[:, None] + len(values) // 2 - 1]

"""Which models' attention is written as one node, beside those that onnxruntime's optimizer recognises.

It knows BERT's and those like it, as torch traces them. MPNet adds a bias by distance, DeBERTa products with embeddings
of distances, ModernBERT turns queries and keys and looks near in most layers. While such a model is traced, its
attention modules run what is written here: the projections, then `MultiHeadAttention` with the rest as additive bias.

What follows from the distance of two tokens alone is computed here by transformers' own code, and the graph looks it up
by distance: a logarithm that rounds otherwise can't put a distance into another bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from cappy_select.export.disentangled import deberta, deberta_v2
from cappy_select.export.node import Attention, Given, Replaced, Turned, by_distance, distances

_FAR = -10_000.0  # added to what is not looked at; `MultiHeadAttention` adds the same to padding


@contextmanager
def one_node(model: Any, window: int) -> Iterator[Callable[[torch.Tensor], None]]:
    """While it lasts, the attention of a model of such a kind is traced as one node a layer, for `window` tokens.

    Gives what must be called with the attention mask ([rows, tokens]) before the model is run.
    """
    given, write = Given(), _WRITTEN.get(model.config.model_type)
    replaced = write(model, given, window) if write else Replaced()

    def start(mask: torch.Tensor) -> None:
        given.mask, given.shared = mask.to(torch.int32), {}

    for (module, name), function in replaced.items():
        setattr(module, name, function)
    try:
        yield start
    finally:
        for module, name in replaced:
            delattr(module, name)  # the class's own shows again


def _mpnet(model: Any, given: Given, window: int) -> Replaced:
    encoder = model.mpnet.encoder
    buckets = encoder.relative_position_bucket(-distances(window))

    def position_bias(states: torch.Tensor) -> torch.Tensor:
        biases = encoder.relative_attention_bias(by_distance(buckets, states))  # [query, key, heads]
        return biases.permute(2, 0, 1).unsqueeze(0)

    def attention(module: Any) -> Callable[..., Any]:
        def forward(states: torch.Tensor, _mask: Any, bias: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
            heads, width = module.num_attention_heads, module.attention_head_size
            projected = module.q(states), module.k(states), module.v(states)
            return (module.o(Attention.apply(*projected, given.mask, bias, heads, width**-0.5)),)

        return forward

    modules = [layer.attention.attn for layer in encoder.layer]
    layers: Replaced = {(module, "forward"): attention(module) for module in modules}
    return layers | {(encoder, "compute_position_bias"): position_bias}


def _modernbert(model: Any, given: Given, window: int) -> Replaced:
    config, encoder = model.config, model.model
    tables = {}
    for kind in set(config.layer_types):
        angles = encoder.rotary_emb(torch.zeros(1), torch.arange(window)[None], kind)
        tables[kind] = [table[0, :, : table.shape[-1] // 2].contiguous() for table in angles]  # its halves are equal
    near = torch.where(distances(window).abs() <= config.sliding_window, 0.0, _FAR)

    def bias(states: torch.Tensor, kind: str) -> torch.Tensor | None:
        if kind == "full_attention":
            return None
        if kind not in given.shared:
            given.shared[kind] = by_distance(near, states)[None, None]  # [1, 1, query, key]
        return given.shared[kind]

    def attention(module: Any, kind: str) -> Callable[..., Any]:
        def forward(states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
            heads, first = config.num_attention_heads, torch.zeros(1, dtype=torch.long)
            query, key, value = module.Wqkv(states).chunk(3, dim=-1)
            query, key = (Turned.apply(each, first, *tables[kind], heads) for each in (query, key))
            mixed = Attention.apply(query, key, value, given.mask, bias(states, kind), heads, module.head_dim**-0.5)
            return module.Wo(mixed), None

        return forward

    def classify(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        states = encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        if config.classifier_pooling == "mean":
            # As a product: onnxruntime sums in another order where there is more padding.
            weights = attention_mask.to(states.dtype)[:, None]
            pooled = (weights @ states)[:, 0] / attention_mask.sum(1, keepdim=True)
        else:
            pooled = states[:, 0]
        return SimpleNamespace(logits=model.classifier(model.head(pooled)))

    layers: Replaced = {
        (layer.attn, "forward"): attention(layer.attn, kind)
        for layer, kind in zip(encoder.layers, config.layer_types, strict=True)
    }
    return layers | {(model, "forward"): classify}


_WRITTEN: dict[str, Callable[[Any, Given, int], Replaced]] = {
    "mpnet": _mpnet,
    "modernbert": _modernbert,
    "deberta": deberta,
    "deberta-v2": deberta_v2,
}

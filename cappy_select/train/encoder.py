"""BERT, RoBERTa, XLM-RoBERTa and MPNet with a regression head, in `flax.nnx`.

The layers' parameters are stacked, and one `lax.scan` goes through them: a layer is compiled once, whatever the
depth (on a CPU few layers are written out, which runs a sixth faster). Parameters are fp32; `compute` is what the
products are made in. Scores are raw, as the paper has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cappy_select.train.attention import attention, dropped
from cappy_select.train.matmul import matmul

Architecture = Literal["bert", "roberta", "xlm-roberta", "mpnet"]
Arrays = dict[str, jax.Array]
_FARTHEST = 128  # tokens: from there on all distances share a bias, as in transformers' `modeling_mpnet`
_UNROLLED = 6  # layers at most; on a CPU alone, for elsewhere compiling takes longer than it saves


class EncoderConfig(BaseModel):
    """The shape of an encoder; names and meaning as in Hugging Face's `config.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    model_type: Architecture
    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    max_position_embeddings: int = Field(ge=1)
    type_vocab_size: int = Field(0, ge=0)
    relative_attention_num_buckets: Literal[32] = 32  # transformers' MPNet counts in 32, whatever the file says
    pad_token_id: int = Field(ge=0)
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    classifier_dropout: float | None = Field(None, ge=0, lt=1)
    initializer_range: float = 0.02
    hidden_act: Literal["gelu"] = "gelu"
    position_embedding_type: Literal["absolute"] = "absolute"

    @model_validator(mode="after")
    def _divides(self) -> EncoderConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if bool(self.type_vocab_size) == self.relative:
            kinds = "no token types" if self.relative else "token types"
            raise ValueError(f"type_vocab_size is {self.type_vocab_size}, and {self.model_type} has {kinds}")
        if self.relative and self.pad_token_id != 1:  # transformers' MPNet counts positions from 2, whatever it is
            raise ValueError(f"pad_token_id is {self.pad_token_id}, and mpnet's is 1")
        return self

    @property
    def relative(self) -> bool:
        """Whether attention has a bias by the distance of two tokens, one for all layers."""
        return self.model_type == "mpnet"

    @property
    def first_position(self) -> int:
        """All but BERT's positions start behind the padding id."""
        return 0 if self.model_type == "bert" else self.pad_token_id + 1

    @property
    def max_length(self) -> int:
        """Tokens of a pair at most, special ones included."""
        return self.max_position_embeddings - self.first_position


class Encoder(nnx.Module):
    """Token ids -> scores.

    Args:
        config: The shape.
        key: Of the initial parameters: normal, of `initializer_range`; biases 0, norms 1.
        compute: The type of the products; norms, softmax and the head's output are fp32 always. So are, on a CPU, the
            states and the attention, which bf16 makes slower there.
        remat: Compute a layer's activations anew in the backward pass instead of keeping them.
    """

    def __init__(
        self, config: EncoderConfig, key: jax.Array, *, compute: Any = jnp.float32, remat: bool = False
    ) -> None:
        self.config, self.compute, self.remat = config, compute, remat
        self.weights = nnx.Dict({name: nnx.Param(value) for name, value in initial_weights(config, key).items()})

    def __call__(
        self,
        ids: jax.Array,
        types: jax.Array,
        lengths: jax.Array,
        *,
        dropout: jax.Array | None = None,
        words: jax.Array | None = None,
    ) -> jax.Array:
        """Scores of pairs.

        Args:
            ids: int32[batch, tokens], padded on the right.
            types: int32[batch, tokens], the token type ids (all 0 where there is one; MPNet does not see them).
            lengths: int32[batch], tokens that are real.
            dropout: The key of this micro-batch's dropout; None: none.
            words: float32[batch, tokens, width], the ids' rows of `word`, for who wants the gradient of these alone.

        Returns: float32[batch], raw.
        """
        config = self.config
        weights: Arrays = {name: parameter[...] for name, parameter in self.weights.items()}
        tokens = ids.shape[1]
        real = jnp.arange(tokens) < lengths[:, None]  # [batch, tokens]
        positions = jnp.where(real, jnp.arange(tokens) + config.first_position, config.first_position - 1)
        positions = jnp.maximum(positions, 0)
        words = weights["word"][ids] if words is None else words
        summed = words + weights["position"][positions]
        if config.type_vocab_size:
            summed += weights["type"][types]
        states = _norm(summed, weights["embedding_norm_scale"], weights["embedding_norm_bias"], config.layer_norm_eps)
        keys = None if dropout is None else jax.random.split(dropout, config.num_hidden_layers + 2)
        states = dropped(states, config.hidden_dropout_prob, None if keys is None else keys[0])
        on_cpu = jax.default_backend() == "cpu"
        kept = jnp.float32 if on_cpu else self.compute
        states = states.astype(kept)  # [batch, tokens, width]
        bias = _by_distance(weights["distance_bias"], tokens) if config.relative else None
        layer: Callable[..., jax.Array] = partial(_layer, config=config, real=real, compute=self.compute)
        if self.remat:
            layer = jax.checkpoint(layer)
        depth = config.num_hidden_layers
        by_layer = (None,) * depth if keys is None else tuple(keys[1:-1])
        if on_cpu and depth <= _UNROLLED:
            *below, last = _layers(weights, (1,) * depth)
            for number, of in enumerate(below):
                states = layer(states, _only(of), by_layer[number], bias)
        else:
            stacked, last = _layers(weights, (depth - 1, 1))
            scanned = (stacked, None if keys is None else keys[1:-2])
            states, _ = jax.lax.scan(lambda found, of: (layer(found, *of, bias), None), states, scanned)
        # The head reads the first token alone, so the last layer has it alone to make: a sixth less work in six layers.
        bias = bias if bias is None else bias[:, :1]
        first = _layer(states, _only(last), by_layer[-1], bias, config=config, real=real, compute=self.compute, made=1)
        return self._head(first[:, 0], weights, None if keys is None else keys[-1])

    def _head(self, first: jax.Array, weights: Arrays, key: jax.Array | None) -> jax.Array:
        """The first token's state -> score."""
        config = self.config
        rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        before, after = (None, None) if key is None else jax.random.split(key)
        if config.model_type != "bert":
            first = dropped(first, rate, before)
        hidden = jnp.tanh(_dense(first, weights["pool_kernel"], weights["pool_bias"], self.compute))
        hidden = dropped(hidden, rate, after)
        return _dense(hidden.astype(jnp.float32), weights["score_kernel"], weights["score_bias"], jnp.float32)[:, 0]


def _layers(weights: Arrays, sizes: tuple[int, ...]) -> list[Arrays]:
    """The layers' parameters in parts, still stacked. Their gradients are put together in one go, where those of
    slices would each be padded to the whole and added."""
    parts = {name: jax.lax.split(weights[name], sizes) for name in _LAYER}
    return [{name: parts[name][number] for name in _LAYER} for number in range(len(sizes))]


def _only(stacked: Arrays) -> Arrays:
    return {name: value[0] for name, value in stacked.items()}


def _layer(
    states: jax.Array,
    weights: Arrays,
    key: jax.Array | None,
    bias: jax.Array | None,
    *,
    config: EncoderConfig,
    real: jax.Array,
    compute: Any,
    made: int | None = None,
) -> jax.Array:
    """One transformer layer, norms behind (post-LN), for the first `made` tokens: [batch, tokens, width] -> [batch,
    made, width]; None: for all of them. `bias`: [heads, made, tokens], of the attention."""
    keys = (None, None, None) if key is None else tuple(jax.random.split(key, 3))
    own = states[:, :made]
    heads = (config.num_attention_heads, config.hidden_size // config.num_attention_heads)

    def projected(of: jax.Array, *names: str) -> list[jax.Array]:
        """One product for several projections: a fifth faster than narrow ones. [batch, heads, tokens, d] each."""
        kernels, biases = (
            jnp.concatenate([weights[f"{name}_{part}"] for name in names], axis=-1) for part in ("kernel", "bias")
        )
        found = _dense(of, kernels, biases, compute).reshape(*of.shape[:2], len(names), *heads)
        return [found[:, :, part].transpose(0, 2, 1, 3) for part in range(len(names))]

    if made is None:
        query, key_, value = projected(states, "query", "key", "value")
    else:
        (query,), (key_, value) = projected(own, "query"), projected(states, "key", "value")
    mixed = attention(query, key_, value, real, config.attention_probs_dropout_prob, keys[0], bias)
    mixed = mixed.transpose(0, 2, 1, 3).reshape(own.shape)
    found = _dense(mixed, weights["attention_kernel"], weights["attention_bias"], compute)
    found = dropped(found, config.hidden_dropout_prob, keys[1])
    norm = partial(_norm, epsilon=config.layer_norm_eps)
    attended = norm(own + found, weights["attention_norm_scale"], weights["attention_norm_bias"])
    wide = jax.nn.gelu(_dense(attended, weights["up_kernel"], weights["up_bias"], compute), approximate=False)
    found = _dense(wide, weights["down_kernel"], weights["down_bias"], compute)
    found = dropped(found, config.hidden_dropout_prob, keys[2])
    return norm(attended + found, weights["output_norm_scale"], weights["output_norm_bias"])


def _by_distance(table: jax.Array, tokens: int) -> jax.Array:
    """[buckets, heads] -> [heads, tokens, tokens], a token's bias for each that it attends to.

    Half the buckets are for the tokens before, half for those behind; half of these are for one distance each, the
    others for spans that grow as its logarithm.
    """
    distance = np.arange(tokens) - np.arange(tokens)[:, None]
    side = len(table) // 2
    exact = side // 2
    far = np.log(np.maximum(np.abs(distance), 1) / exact, dtype=np.float32) / np.float32(math.log(_FARTHEST / exact))
    spans = np.minimum(exact + (far * np.float32(side - exact)).astype(int), side - 1)
    buckets = np.where(distance > 0, side, 0) + np.where(np.abs(distance) < exact, np.abs(distance), spans)
    return table[buckets].transpose(2, 0, 1)


def _dense(states: jax.Array, kernel: jax.Array, bias: jax.Array, compute: Any) -> jax.Array:
    return matmul(states, kernel, compute) + bias.astype(states.dtype)


def _norm(states: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    exact = states.astype(jnp.float32)
    centred = exact - exact.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + epsilon) * scale + bias).astype(states.dtype)


_LAYER = tuple(
    f"{name}_{part}"
    for name, parts in {
        "query": ("kernel", "bias"), "key": ("kernel", "bias"), "value": ("kernel", "bias"),
        "attention": ("kernel", "bias"), "attention_norm": ("scale", "bias"), "up": ("kernel", "bias"),
        "down": ("kernel", "bias"), "output_norm": ("scale", "bias"),
    }.items()
    for part in parts
)  # fmt: skip


def parameter_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """The parameters by name; those of the layers with the layer as their first axis."""
    width, wide, depth = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    kernels = {"up": (width, wide), "down": (wide, width)}
    of_layer = {}
    for name in _LAYER:
        stem, _, part = name.rpartition("_")
        matrix = kernels.get(stem, (width, width))
        of_layer[name] = (depth, *matrix) if part == "kernel" else (depth, matrix[-1])
    buckets = (config.relative_attention_num_buckets, config.num_attention_heads)
    return {
        "word": (config.vocab_size, width),
        "position": (config.max_position_embeddings, width),
        **({"type": (config.type_vocab_size, width)} if config.type_vocab_size else {}),
        **({"distance_bias": buckets} if config.relative else {}),
        "embedding_norm_scale": (width,),
        "embedding_norm_bias": (width,),
        **of_layer,
        "pool_kernel": (width, width),
        "pool_bias": (width,),
        "score_kernel": (width, 1),
        "score_bias": (1,),
    }


def initial_weights(config: EncoderConfig, key: jax.Array, *, without: Collection[str] = ()) -> Arrays:
    """Random weights by name; those that are there already can be left out."""
    shapes = parameter_shapes(config)
    keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
    return {
        name: _initial(name, shape, keys[name], config.initializer_range)
        for name, shape in shapes.items()
        if name not in without
    }


def _initial(name: str, shape: tuple[int, ...], key: jax.Array, deviation: float) -> jax.Array:
    if name.endswith("scale"):
        return jnp.ones(shape, jnp.float32)
    if name.endswith("bias") and name != "distance_bias":
        return jnp.zeros(shape, jnp.float32)
    return deviation * jax.random.normal(key, shape, jnp.float32)

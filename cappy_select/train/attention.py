"""Attention among the tokens of a pair, and dropout; with gradients that a CPU computes fast.

Measured on two CPU cores (4,096 tokens of 12 heads): the gradient that JAX derives multiplies by transposed
[tokens, tokens] matrices, at half the speed, and keeps several of them; this one keeps the probabilities only. Bits of
`jax.random.bernoulli` take forty times as long as the product they are multiplied with.
"""

from __future__ import annotations

from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np

_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array | None]


def dropped(values: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Values of any shape, each 0 with probability `rate` and the others scaled up; `key` None: as they are."""
    if key is None or not rate:
        return values
    return _masked(values, rate, jax.random.bits(key, (), jnp.uint32))


def _masked(values: jax.Array, rate: float, seed: jax.Array | None) -> jax.Array:
    if seed is None:
        return values
    # A number for each place, mixed until its bits are even: the compiler makes it where it is used, so no mask is
    # kept, and it is the same on any number of devices. Rows of a batch have seeds of their own.
    rows, *others = values.shape
    own = _mixed(jax.lax.iota(jnp.uint32, rows) + seed).reshape(rows, *(1 for _ in others))
    bits = _mixed(jax.lax.iota(jnp.uint32, prod(others)).reshape(1, *others) + own)
    return jnp.where(bits >= np.uint32(rate * 2**32), values / (1 - rate), 0).astype(values.dtype)


def _mixed(bits: jax.Array) -> jax.Array:
    """C. Wellons' "lowbias32"."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    real: jax.Array,
    rate: float,
    dropout: jax.Array | None,
    bias: jax.Array | None = None,
) -> jax.Array:
    """softmax(QK^T / sqrt(d) + bias) V.

    Args:
        query: [batch, heads, asking, d].
        key, value: [batch, heads, tokens, d].
        real: bool[batch, tokens], the tokens that can be attended to.
        rate: Of the dropout of probabilities.
        dropout: Its key; None: none.
        bias: float32[heads, asking, tokens]; None: none.

    Returns: [batch, heads, asking, d], of the same type; the softmax is fp32.
    """
    seed = None if dropout is None or not rate else jax.random.bits(dropout, (), jnp.uint32)
    return _attention(query, key, value, real, seed, bias, rate)


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def _attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    real: jax.Array,
    seed: jax.Array | None,
    bias: jax.Array | None,
    rate: float,
) -> jax.Array:
    return _forward(query, key, value, real, seed, bias, rate)[0]


def _forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    real: jax.Array,
    seed: jax.Array | None,
    bias: jax.Array | None,
    rate: float,
) -> tuple[jax.Array, _Kept]:
    scale = query.shape[-1] ** -0.5
    scores = jnp.einsum("bhtd,bhsd->bhts", query, key, preferred_element_type=jnp.float32) * scale
    scores = scores if bias is None else scores + bias
    chances = jax.nn.softmax(jnp.where(real[:, None, None], scores, -1e30), axis=-1).astype(query.dtype)
    mixed = jnp.einsum("bhts,bhsd->bhtd", _masked(chances, rate, seed), value)
    return mixed, (query, key, value, mixed, chances, seed, bias)


def _backward(
    rate: float, kept: _Kept, gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None, None, jax.Array | None]:
    query, key, value, mixed, chances, seed, bias = kept
    scale = query.shape[-1] ** -0.5
    to_value = _turned(jnp.einsum("bhtd,bhts->bhds", gradient, _masked(chances, rate, seed)))
    to_chances = jnp.einsum("bhtd,bhsd->bhts", gradient, value, preferred_element_type=jnp.float32)
    # Each row's sum of gradient times chance, which the softmax takes away, is that of gradient times result.
    rows = jnp.sum(gradient.astype(jnp.float32) * mixed.astype(jnp.float32), axis=-1, keepdims=True)
    to_scores = chances * (_masked(to_chances, rate, seed) - rows)
    to_bias = None if bias is None else jnp.sum(to_scores, axis=0, dtype=jnp.float32)
    to_scores = (to_scores * scale).astype(query.dtype)
    to_query = jnp.einsum("bhts,bhsd->bhtd", to_scores, key)
    to_key = _turned(jnp.einsum("bhtd,bhts->bhds", query, to_scores))
    return to_query, to_key, to_value, None, None, to_bias


def _turned(product: jax.Array) -> jax.Array:
    """[..., d, tokens] -> [..., tokens, d]; behind a barrier, or the compiler turns the product itself, and the
    gradient takes a third longer (512 tokens)."""
    made: jax.Array = jax.lax.optimization_barrier(product)
    return made.swapaxes(2, 3)


_attention.defvjp(_forward, _backward)

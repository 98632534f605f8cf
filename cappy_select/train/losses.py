"""What a scorer is trained to: the labels themselves, or their order within a group.

All losses are sums, which whoever knows the whole update divides by its rows and comparisons: so micro-batches add up.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Sums(NamedTuple):
    """Over a micro-batch: squared errors, and ranking losses."""

    squared: jax.Array
    ranking: jax.Array


def sums(scores: jax.Array, goals: jax.Array, weights: jax.Array, ranking_scale: float = 1.0) -> Sums:
    """Of a micro-batch: scores, goals and weights are float32[units, width].

    Squared error: Cappy's L2 loss (Tan et al. 2023). Ranking: Bradley-Terry, minus the log-likelihood that the
    better of two responses to one instruction scores higher; each two of a unit whose goals differ are compared, by
    the difference of their scores times `ranking_scale`.
    """
    squared = jnp.sum(weights * jnp.square(scores - goals))
    both = weights[:, :, None] * weights[:, None, :]  # [units, width, width]
    better = (goals[:, :, None] > goals[:, None, :]) * both
    ahead = ranking_scale * (scores[:, :, None] - scores[:, None, :])
    return Sums(squared, -jnp.sum(better * jax.nn.log_sigmoid(ahead)))

"""What a scorer is trained to: the labels themselves, or their order within a group.

All losses are sums, with the number that they are to be divided by beside them: so that micro-batches add up to the
loss of their step.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Sums(NamedTuple):
    """Sums over micro-batches: squared errors and their rows, ranking losses and their pairs of rows."""

    squared: jax.Array
    rows: jax.Array
    ranking: jax.Array
    comparisons: jax.Array


def sums(scores: jax.Array, goals: jax.Array, weights: jax.Array) -> Sums:
    """Of a micro-batch: scores, goals and weights are float32[units, width].

    Squared error: Cappy's L2 loss (Tan et al. 2023). Ranking: Bradley-Terry, minus the log-likelihood that the
    better of two responses to one instruction scores higher; each two of a unit whose goals differ are compared.
    """
    squared = jnp.sum(weights * jnp.square(scores - goals))
    better = (
        (goals[:, :, None] > goals[:, None, :]) * weights[:, :, None] * weights[:, None, :]
    )  # [units, width, width]
    ahead = scores[:, :, None] - scores[:, None, :]
    ranking = -jnp.sum(better * jax.nn.log_sigmoid(ahead))
    return Sums(squared, weights.sum(), ranking, better.sum())

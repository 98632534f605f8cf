"""The compiled functions: a micro-batch's gradient, an update, scores.

An update's loss is a sum over its micro-batches: each is divided by the numbers of the whole update (rows,
comparisons), which are known before anything is computed. So how an update is cut changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from cappy_select.train.batches import MicroBatch
from cappy_select.train.config import TrainConfig
from cappy_select.train.encoder import Encoder, EncoderConfig, parameter_shapes
from cappy_select.train.losses import sums
from cappy_select.train.mesh import put, rows_sharding, weights_sharding, whole_sharding

Weights = dict[str, jax.Array]


class State(NamedTuple):
    """What an update changes."""

    weights: Weights
    optimiser: Any  # optax's
    step: jax.Array  # int32[], updates made; checkpoints have it under this name


class Compiled(NamedTuple):
    """The functions of one run, for all devices of its mesh.

    begin(weights) -> the state before the first update; weights by name, as NumPy has them.
    zeros() -> gradients of 0.
    gradient(weights, gradients, batch, counts, key) -> gradients with this micro-batch's part added, and its part of
        the loss, float32[]. `counts` is (rows, comparisons) of the whole update, `key` (update, micro-batch).
    update(state, gradients) -> the new state, and the gradients' norm, float32[]. The old state is gone.
    scores(weights, batch) -> float32[units, width], on every device.
    gather(weights) -> the weights, whole on every device.
    """

    begin: Callable[[Mapping[str, Any]], State]
    zeros: Callable[[], Weights]
    gradient: Callable[..., tuple[Weights, jax.Array]]
    update: Callable[[State, Weights], tuple[State, jax.Array]]
    scores: Callable[[Weights, MicroBatch], jax.Array]
    gather: Callable[[Weights], Weights]


def compiled(
    config: TrainConfig, shape: EncoderConfig, optimiser: optax.GradientTransformation, mesh: Mesh
) -> Compiled:
    """The functions for one run."""
    compute = jnp.dtype(config.compute_dtype)
    graph = nnx.graphdef(nnx.eval_shape(lambda: Encoder(shape, jax.random.key(0), compute=compute, remat=config.remat)))
    shapes = parameter_shapes(shape)
    layout = weights_sharding(mesh, shapes)
    whole, rows = whole_sharding(mesh), rows_sharding(mesh)

    def scored(weights: Weights, batch: Any, key: jax.Array | None, words: jax.Array | None = None) -> jax.Array:
        merged: Encoder = nnx.merge(graph, {"weights": weights})
        return merged(batch.ids, batch.types, batch.lengths, dropout=key, words=words).reshape(batch.scores.shape)

    def loss_of(others: Weights, words: jax.Array, word: jax.Array, batch: Any, counts: Any, key: Any) -> jax.Array:
        scores = scored(others | {"word": word}, batch, key, words)
        part = sums(scores, batch.scores, batch.weights, config.ranking_scale)
        squared = config.l2_weight * part.squared / counts[0]
        return jnp.add(squared, config.ranking_weight * part.ranking / jnp.maximum(counts[1], 1))

    def gradient(weights: Weights, gradients: Weights, batch: Any, counts: Any, key: Any) -> tuple[Weights, jax.Array]:
        dropout = None
        if config.dropout:
            dropout = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), key[0]), key[1])
        others = {name: value for name, value in weights.items() if name != "word"}
        words = weights["word"][batch.ids]
        differentiated = jax.value_and_grad(loss_of, argnums=(0, 1))
        loss, (found, of_words) = differentiated(others, words, weights["word"], batch, counts, dropout)
        # Of half a small model's parameters, the embedding, a micro-batch sees some rows: only these are added to.
        added = {name: gradients[name] + value for name, value in found.items()}
        return added | {"word": gradients["word"].at[batch.ids].add(of_words)}, loss

    def update(state: State, gradients: Weights) -> tuple[State, jax.Array]:
        changes, inner = optimiser.update(gradients, state.optimiser, state.weights)
        weights = optax.apply_updates(state.weights, changes)
        return State(weights, inner, state.step + 1), optax.tree.norm(gradients)

    def layout_of(tree: Any) -> Any:
        """The optimiser keeps arrays of each weight's name: they lie as it does."""

        def by_name(path: tuple[Any, ...], _: Any) -> Any:
            return layout.get(str(getattr(path[-1], "key", "")), whole) if path else whole

        return jax.tree_util.tree_map_with_path(by_name, tree)

    placed = jax.eval_shape(optimiser.init, {name: jax.ShapeDtypeStruct(shapes[name], jnp.float32) for name in shapes})
    states: Any = State(layout, layout_of(placed), whole)  # type: ignore[arg-type]

    def begin(weights: Mapping[str, Any]) -> State:
        held = {name: put(np.asarray(weights[name], np.float32), layout[name]) for name in shapes}
        inner = jax.jit(optimiser.init, out_shardings=states.optimiser)(held)
        return State(held, inner, put(np.zeros((), np.int32), whole))

    def spread(batch: MicroBatch) -> Any:
        return MicroBatch(*(put(each, rows) for each in batch))  # type: ignore[arg-type]

    adding = jax.jit(gradient, donate_argnums=1, out_shardings=(layout, whole))
    scoring = jax.jit(lambda weights, batch: scored(weights, batch, None), out_shardings=whole)
    return Compiled(
        begin=begin,
        zeros=jax.jit(
            lambda: {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()}, out_shardings=layout
        ),
        gradient=lambda weights, gradients, batch, *more: adding(weights, gradients, spread(batch), *more),
        update=jax.jit(update, donate_argnums=0, out_shardings=(states, whole)),
        scores=lambda weights, batch: scoring(weights, spread(batch)),
        gather=jax.jit(lambda weights: weights, out_shardings=whole),
    )

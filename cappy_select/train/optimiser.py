"""AdamW with a schedule that is counted in updates, never in micro-batches."""

from __future__ import annotations

from typing import Any

import jax
import optax

from cappy_select.train.config import TrainConfig


def schedule_of(config: TrainConfig) -> optax.Schedule:
    """Learning rate by update: up from 0 in the warm-up, then as the schedule says. As transformers' get_*_schedule."""
    warm = round(config.warmup * config.updates)
    rest = max(1, config.updates - warm)
    after: optax.Schedule = {
        "linear": optax.linear_schedule(config.learning_rate, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(config.learning_rate, rest),
        "constant": optax.constant_schedule(config.learning_rate),
    }[config.schedule]
    if not warm:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, config.learning_rate, warm), after], [warm])


def optimiser_of(config: TrainConfig) -> optax.GradientTransformation:
    """Clipping, then AdamW; norms and biases do not decay."""
    adam = optax.adamw(schedule_of(config), weight_decay=config.weight_decay, mask=_decays)
    return adam if config.max_grad_norm is None else optax.chain(optax.clip_by_global_norm(config.max_grad_norm), adam)


def _decays(weights: Any) -> Any:
    def by_name(path: tuple[Any, ...], _: jax.Array) -> bool:
        name = jax.tree_util.keystr(path)
        return not ("bias" in name or "norm" in name)

    return jax.tree_util.tree_map_with_path(by_name, weights)

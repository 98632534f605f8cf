"""What an adaptation would take, before anything is spent: calls, dollars, minutes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.adapt.config import AdaptConfig
from cappy_select.adapt.folder import HELD_OUT, STORE, TRAIN, asked_of, state_of
from cappy_select.adapt.run import base_bundle, check
from cappy_select.adapt.sampling import Side, prepare, sampler_of
from cappy_select.adapt.split import of_side
from cappy_select.adapt.training import training_config, uses_references
from cappy_select.ask.requests import as_plan
from cappy_select.ask.sampling import token_limit
from cappy_select.bundle.bundle import Bundle
from cappy_select.core.types import total_cost
from cappy_select.data.bulk import ASSUMED_TOKENS, Limits
from cappy_select.data.formats import Problems
from cappy_select.data.sample import Estimate
from cappy_select.data.store import SampleStore
from cappy_select.scorer.encoding import PairEncoder
from cappy_select.train.config import TrainConfig
from cappy_select.train.flops import training_flops
from cappy_select.train.start import starting_point

_CALL_S = 5.0  # one call: a guess
_SHARE = 0.3  # of its rate of matrix products that a machine reaches in training (two CPU cores; MiniLM's shape)
_REST_MINUTES = 1.0  # to compile, export and measure


class ModelOutlook(BaseModel):
    """What one model would be asked. `cost` is None when its price is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    model: str
    stored: int
    samples: int
    calls: int
    cost: float | None


class AdaptEstimate(BaseModel):
    """The whole: dollars are None when a price is unknown, minutes are rough."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    train: int = Field(description="instances to learn from")
    held_out: int
    models: tuple[ModelOutlook, ...]
    calls: int
    cost: float | None
    pairs: int = Field(description="at most")
    updates: int
    sampling_minutes: float
    training_minutes: float
    left_out: int


def estimate(
    instances: Sequence[str | Path],
    out: str | Path,
    config: AdaptConfig,
    *,
    recorded: Sequence[str | Path] = (),
    fields: Mapping[str, str] | None = None,
    limit: int | None = None,
    limits: Limits | None = None,
    api_base: str | None = None,
    strict: bool = False,
) -> AdaptEstimate:
    """What `adapt` would take with the same arguments. Asks nothing and writes nothing."""
    check(instances, config, recorded)
    limits, fields = limits or Limits(), fields or {}
    out = Path(out)
    begun = state_of(out, asked_of(config, instances, recorded, {"fields": dict(fields), "limit": limit}))
    problems = Problems(strict=strict)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        there = begun is not None and begun["taken_in"] and (out / STORE).is_file()
        store = stack.enter_context(SampleStore((out if there else scratch) / STORE, write=not there))
        sides = prepare(
            config, scratch, store, instances, recorded, problems, fields=fields, limit=limit, taken_in=there
        )  # fmt: skip
        closed = begun is not None and begun["sampled"] is not None  # nobody is asked any more
        asked = [] if closed or not config.models else sampler_of(config, scratch, store, limits, api_base).estimate()
        base = base_bundle(config, scratch)
        lengths = _lengths(config, scratch, store, asked, sides, base)
        groups = max(1, round(sides[TRAIN].instances * (1 - config.validation)))
        plan = training_config(config, scratch, base.path, base.manifest.max_length, groups, 8)
        training_s = _training_s(plan, lengths, len(lengths) / sides[TRAIN].instances)
    calls = sum(row.calls for row in asked)
    return AdaptEstimate(
        train=sides[TRAIN].instances,
        held_out=sides[HELD_OUT].instances,
        models=tuple(
            ModelOutlook(model=row.model, stored=row.stored, samples=row.samples, calls=row.calls, cost=row.cost)
            for row in asked
        ),
        calls=calls,
        cost=total_cost([row.cost for row in asked]),
        pairs=len(lengths),
        updates=plan.updates,
        sampling_minutes=max((_sampling_s(row.calls, limits) for row in asked), default=0.0) / 60,
        training_minutes=training_s / 60 + _REST_MINUTES,
        left_out=problems.count,
    )


def _sampling_s(calls: int, limits: Limits) -> float:
    """Of the calls to one model; models are asked side by side."""
    at_once = calls * _CALL_S / limits.concurrency
    return max(at_once, 60 * calls / limits.per_minute if limits.per_minute else 0.0)


def _lengths(
    config: AdaptConfig,
    folder: Path,
    store: SampleStore,
    asked: Sequence[Estimate],
    sides: Mapping[Path, Side],
    base: Bundle,
) -> npt.NDArray[np.int64]:
    """int64[pairs]: tokens of each training pair, as far as they are known: answers to come are as long as assumed."""
    encoder = PairEncoder.of(base)
    window = base.manifest.max_length
    coming = round(sum(row.samples for row in asked) / sum(side.instances for side in sides.values()))
    samplings = as_plan(config.samples, config.plan).samplings
    longest = [sampling.max_tokens for sampling in samplings if sampling.max_tokens]
    assumed = max(longest, default=token_limit(config.params) or ASSUMED_TOKENS)
    train = sides[TRAIN]
    references = uses_references(config, train.judged, train.samples + coming * train.instances)
    found: list[int] = []
    for row in of_side(folder, TRAIN):
        texts = list({each.sample.response for each in store.samples(row)})
        if references:
            texts += [*row.references, *(row.choices or row.references), *row.negatives]
        asks, *given = (tokens.length for tokens in encoder.tokens([row.instruction, *texts]))
        found += [min(window, asks + length + encoder.special_count) for length in [*given, *[assumed] * coming]]
    return np.array(found, np.int64)


def _training_s(plan: TrainConfig, lengths: npt.NDArray[np.int64], rows: float) -> float:
    """Of all updates, with so many rows a group, by the rate of this machine's matrix products, measured for a
    moment."""
    import jax
    import jax.numpy as jnp

    product = jax.jit(lambda first, second: first @ second)
    tokens, width, wide = 512, 384, 1536
    first, second = jnp.ones((tokens, width)), jnp.ones((width, wide))
    product(first, second).block_until_ready()
    began, turns = time.perf_counter(), 0
    while time.perf_counter() - began < 0.3:
        product(first, second).block_until_ready()
        turns += 1
    rate = 2 * tokens * width * wide * turns / (time.perf_counter() - began)
    a_row = training_flops(starting_point(plan).shape, lengths) / len(lengths)
    return plan.updates * plan.batch * min(rows, plan.width) * a_row / rate / _SHARE

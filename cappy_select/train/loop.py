"""The training loop: pairs -> a scorer's weights. One function, from top to bottom."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from cappy_select.core.errors import DataError
from cappy_select.train.batches import Batches, MicroBatch
from cappy_select.train.checkpoints import Checkpoints
from cappy_select.train.compiled import Compiled, Weights, compiled
from cappy_select.train.config import TrainConfig
from cappy_select.train.encoder import initial_weights
from cappy_select.train.evaluation import Evaluation, Validation, best_of
from cappy_select.train.flops import peak_flops, training_flops
from cappy_select.train.mesh import mesh_of
from cappy_select.train.optimiser import optimiser_of, schedule_of
from cappy_select.train.run import Log, Update
from cappy_select.train.runtime import any_process
from cappy_select.train.start import Start
from cappy_select.train.tokens import TokenSet
from cappy_select.train.weights import Array

_IN_FLIGHT = 2  # micro-batches that the devices were given and have not done: enough to keep them busy


class Fit(NamedTuple):
    """How the loop ended: what was logged, and updates made; the best weights and their update, or the signal that
    stopped it."""

    updates: list[Update]
    done: int
    weights: dict[str, Array] | None = None
    best: int | None = None
    signal: int | None = None


def fit(
    config: TrainConfig,
    start: Start,
    train: TokenSet,
    validation: TokenSet | None,
    out: Path,
    *,
    owner: Mapping[str, Any] | None = None,
    wandb: str | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_update: Callable[[Update], None] = lambda update: None,
) -> Fit:
    """Train on `train` from where `out` is, or from the start; keep the best by `validation`.

    `owner` is what makes this run the one it is: states that another run kept are refused.

    SIGTERM and SIGINT end it between two micro-batches, with a checkpoint. Raises InputError, DataError.
    """
    # ---------------------------------------------------------------------------------------------------- the machine
    mesh = mesh_of(config.fsdp)
    missing = initial_weights(start.shape, jax.random.key(config.seed), without=start.weights)
    run = compiled(config, start.shape, optimiser_of(config), mesh)
    state = run.begin(missing | start.weights)
    shared: dict[str, Any] = {
        "micro_tokens": mesh.size * (config.micro_tokens or (512 if jax.default_backend() == "cpu" else 16_384)),
        "buckets": config.buckets,
        "multiple": mesh.size,
        "pad": start.shape.pad_token_id,
        "seed": config.seed,
    }
    batches = Batches(train, batch=config.batch, width=config.width, **shared)
    rates = schedule_of(config)
    peak = peak_flops(mesh.devices.flat[0].device_kind, config.peak_tflops)

    # ------------------------------------------------------------------------------------------------ what to look at
    looked = None if validation is None else Validation(validation, config.validation_rows, config.seed)
    evaluations = None if validation is None else Batches(validation, batch=1, **shared)

    def due(update: int) -> bool:
        every = config.evaluate_every
        return looked is not None and (update in (0, config.updates) or (every is not None and update % every == 0))

    # ------------------------------------------------------------------------------------------------------- the loop
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_signals())
        checkpoints = stack.enter_context(Checkpoints(out / "checkpoints", owner or {}))
        gone_on = checkpoints.newest(state)
        state = state if gone_on is None else gone_on
        done = int(state.step)
        on_stage(f"going on after update {done} of {config.updates}" if done else f"training: {config.updates} updates")
        log = stack.enter_context(Log(out, -1 if gone_on is None else done, wandb, config))
        coming = stack.enter_context(_ahead(batches.of_update, done, config.updates))

        def competing() -> dict[int, Evaluation]:
            return {update: look for update, look in log.evaluations.items() if update > 0 or start.is_scorer}

        stopped = None
        until, late = math.inf, False
        try:
            while True:
                if (
                    (due(done) or late)
                    and done not in log.evaluations
                    and looked is not None
                    and evaluations is not None
                ):
                    try:
                        evaluation = looked.look(evaluations, partial(_scores, run, state.weights, stop))
                    except DataError as error:
                        why = (
                            "training diverged: lower learning_rate or max_grad_norm"
                            if done
                            else "start from another scorer"
                        )
                        raise DataError(f"after update {done} {error}: {why}") from error
                    if best_of(competing() | {done: evaluation}) == done:
                        checkpoints.save(done, state)  # no later weights are kept than there is a state to go on from
                        checkpoints.wait()
                        checkpoints.save_best(done, state.weights)
                    on_update(log.add(Update(done, evaluation=evaluation)))
                if late or done == config.updates or _out_of_patience(config.patience, competing()):
                    break
                if config.max_minutes is not None:
                    until = min(until, time.monotonic() + 60 * config.max_minutes)  # from the first update on
                    if late := any_process(time.monotonic() > until):
                        continue  # to the last evaluation
                stop.check(together=True)
                began = time.perf_counter()
                micro_batches = next(coming)
                counts, lengths = _counts(micro_batches)
                gradients, losses = run.zeros(), []
                for number, micro in enumerate(micro_batches):
                    key = np.array([done, number], np.int32)
                    gradients, loss = run.gradient(state.weights, gradients, micro, counts, key)
                    losses.append(loss)
                    if number >= _IN_FLIGHT:
                        losses[number - _IN_FLIGHT].block_until_ready()
                    stop.check()
                rate = float(rates(done))
                state, norm = run.update(state, gradients)
                done += 1
                total, size = sum(map(float, losses)), float(norm)
                if not (math.isfinite(total) and math.isfinite(size)):
                    raise DataError(
                        f"training diverged at update {done}: the loss is {total}, the gradient's norm {size}; lower "
                        "learning_rate or max_grad_norm"
                    )
                seconds = time.perf_counter() - began
                mfu = None if peak is None else training_flops(start.shape, lengths) / seconds / peak / mesh.size
                on_update(log.add(Update(done, total, rate, size, int(lengths.sum()), seconds, mfu)))
                if done % config.save_every == 0:
                    checkpoints.save(done, state)
        except _Stopped:  # the state is that before the update; what was added up of it is given up
            stopped = stop.signal or signal.SIGTERM
        checkpoints.save(done, state)
        checkpoints.wait()

        # ------------------------------------------------------------------------------------------------ the result
        if stopped is not None:
            return Fit(log.updates, done, signal=stopped)
        best = best_of(competing()) if competing() else done
        found = checkpoints.best(best, state.weights) if best != done else None
        weights = run.gather(state.weights if found is None else found)
        best = done if found is None else best
        return Fit(log.updates, done, {name: np.asarray(value) for name, value in weights.items()}, best)


class _Stopped(Exception):
    """A signal asked for the end."""


class _Stop:
    """Whether a signal asked for the end. Clouds send SIGTERM before they take a machine away."""

    signal: int | None = None

    def check(self, *, together: bool = False) -> None:
        """Raises _Stopped when the end was asked for. Several processes must agree, so theirs is asked `together`."""
        if (together or jax.process_count() == 1) and any_process(self.signal is not None):
            raise _Stopped


def _scores(run: Compiled, weights: Weights, stop: _Stop, micro: MicroBatch) -> npt.NDArray[np.float32]:
    stop.check()
    return np.asarray(run.scores(weights, micro))


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """SIGTERM and SIGINT as a wish; the second one works as it did before."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def asked(number: int, _: object) -> None:
        stop.signal = number
        restore()

    for number in before:
        signal.signal(number, asked)
    try:
        yield stop
    finally:
        restore()


@contextmanager
def _ahead(make: Callable[[int], list[MicroBatch]], first: int, last: int) -> Iterator[Iterator[list[MicroBatch]]]:
    """The updates' micro-batches: a thread makes the next ones while one is worked on."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="loader")

    def each() -> Iterator[list[MicroBatch]]:
        coming = [pool.submit(make, update) for update in range(first, min(first + 2, last))]
        for update in range(first, last):
            yield coming.pop(0).result()
            if update + 2 < last:
                coming.append(pool.submit(make, update + 2))

    try:
        yield each()
    finally:
        pool.shutdown(cancel_futures=True)


def _counts(micro_batches: list[MicroBatch]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """float32[2]: real rows of an update, and comparisons of two rows of a group with different labels; the real rows'
    lengths."""
    rows, comparisons = 0.0, 0.0
    for micro in micro_batches:
        both = micro.weights[:, :, None] * micro.weights[:, None, :]
        rows += float(micro.weights.sum())
        comparisons += float((both * (micro.scores[:, :, None] > micro.scores[:, None, :])).sum())
    lengths = np.concatenate([micro.lengths[micro.weights.ravel() > 0] for micro in micro_batches])
    return np.array([rows, comparisons], np.float32), lengths


def _out_of_patience(patience: int | None, evaluations: Mapping[int, Evaluation]) -> bool:
    if patience is None or not evaluations:
        return False
    best = best_of(evaluations)
    return sum(update > best for update in evaluations) >= patience

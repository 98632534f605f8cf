"""Many calls at once: what arrives by the deadline is an answer, everything else a failure with its reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from cappy_select.errors import RETRYABLE, NoCandidates, ProviderError
from cappy_select.providers import Priced, Provider
from cappy_select.types import Candidate, Failure, Request, Usage, estimated_usage, response_text, total_cost

_DRAIN_S = 0.25  # for cancelled calls to close their connections; one that will not end is left behind
_PERHAPS_BILLED = frozenset({"timeout", "connection", "invalid_response"})  # the request was read, the answer lost


class FanOutConfig(BaseModel):
    """How long to wait for the answers, and how many are enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deadline_s: float = Field(60.0, gt=0, allow_inf_nan=False, description="for all calls together, retries included")
    min_usable: int = Field(1, ge=1, description="answers that are not empty; with fewer there is no selection")
    max_retries: int = Field(2, ge=0, description="of one call, on rate limits, timeouts and server errors")


@dataclass(frozen=True)
class Call:
    """One upstream call to make."""

    provider: Provider
    request: Request


@dataclass(frozen=True)
class Bill:
    """Tokens, and dollars or None when a price is unknown."""

    usage: Usage
    cost: float | None


@dataclass(frozen=True)
class Gathered:
    """What came back, in request order: candidates (empty ones rejected) and failures, and what it cost.

    `usage` and `cost` cover all calls: those that failed, and attempts that failed before one that did not.
    """

    candidates: tuple[Candidate, ...]
    failures: tuple[Failure, ...]
    usage: Usage
    cost: float | None


@dataclass
class _Progress:
    """What is known of a call while it runs, so that a cancelled one can still say how it went."""

    started: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    attempts: int = 0
    last_error: ProviderError | None = None
    lost: list[Bill] = field(default_factory=list)  # of the attempts that failed

    @property
    def latency_s(self) -> float:
        return (self.ended or time.perf_counter()) - self.started


async def fan_out(calls: Sequence[Call], config: FanOutConfig) -> Gathered:
    """Make all calls at once and gather what arrives before the deadline.

    Every task is cancelled and drained on every way out, the caller's own cancellation included.

    Raises NoCandidates when fewer than `config.min_usable` usable answers arrived.
    """
    progress = [_Progress() for _ in calls]
    tasks = [asyncio.create_task(_complete(call, state, config)) for call, state in zip(calls, progress, strict=True)]
    try:
        await asyncio.wait(tasks, timeout=config.deadline_s)
    finally:
        await _drain(tasks)
    candidates: list[Candidate] = []
    failures: list[Failure] = []
    for call, state, task in zip(calls, progress, tasks, strict=True):
        if task.done() and not task.cancelled() and task.exception() is None:
            candidates += [
                candidate.model_copy(
                    update={
                        "index": len(candidates) + position,
                        "latency_s": state.latency_s,
                        "rejected": None if is_usable(candidate) else "empty answer",
                    }
                )
                for position, candidate in enumerate(task.result())
            ]
        else:
            failures.append(_failure(call, state, task, config.deadline_s))
    bills = [Bill(candidate.usage, candidate.cost) for candidate in candidates]
    bills += [bill for state in progress for bill in state.lost]
    gathered = Gathered(
        tuple(candidates),
        tuple(failures),
        usage=sum((bill.usage for bill in bills), Usage()),
        cost=total_cost(bill.cost for bill in bills),
    )
    usable = sum(candidate.rejected is None for candidate in candidates)
    if usable < config.min_usable:
        raise _no_candidates(gathered, usable, config.min_usable)
    return gathered


def is_usable(candidate: Candidate) -> bool:
    """An answer with text, or with a tool call, can win."""
    return bool(response_text(candidate.message).strip())


async def _complete(call: Call, state: _Progress, config: FanOutConfig) -> list[Candidate]:
    retrying = AsyncRetrying(
        # A wait that would end beyond the deadline is not begun: the error is the answer, now.
        stop=stop_after_attempt(config.max_retries + 1) | stop_before_delay(config.deadline_s),
        wait=_wait,
        retry=retry_if_exception(lambda error: isinstance(error, ProviderError) and error.kind in RETRYABLE),
        reraise=True,
    )
    try:
        async for attempt in retrying:
            with attempt:
                return await _attempt(call, state)
        raise AssertionError("unreachable: tenacity returns or raises")
    finally:
        state.ended = time.perf_counter()


async def _attempt(call: Call, state: _Progress) -> list[Candidate]:
    state.attempts += 1
    try:
        return _checked(await call.provider.complete(call.request), call)
    except ProviderError as error:
        _note_failure(call, state, error)
        raise
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # by us, or by the caller
        # A provider's own defect must not cost the answers of the others: it is one more failure, named.
        failure = _invalid(call, f"{type(error).__name__}: {error}")
        _note_failure(call, state, failure)
        raise failure from error


def _note_failure(call: Call, state: _Progress, error: ProviderError) -> None:
    state.last_error = error
    state.lost.append(_bill(call, error))


def _checked(answers: list[Candidate], call: Call) -> list[Candidate]:
    if not isinstance(answers, list) or not all(isinstance(answer, Candidate) for answer in answers):
        raise _invalid(call, f"the provider must return a list of Candidate, it returned {answers!r:.80}")
    if not answers:
        raise _invalid(call, "the provider returned no answer")
    return answers


def _invalid(call: Call, message: str) -> ProviderError:
    return ProviderError(message, kind="invalid_response", model=str(call.provider.model))


_backoff = wait_random_exponential(multiplier=0.25, max=8.0)


def _wait(state: RetryCallState) -> float:
    """The provider's own Retry-After where it gave one, else jittered exponential back-off."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ProviderError) and error.retry_after_s is not None:
        return error.retry_after_s
    return _backoff(state)


async def _drain(tasks: Sequence[asyncio.Task[list[Candidate]]]) -> None:
    pending = [task for task in tasks if not task.done()]
    for task in tasks:
        task.add_done_callback(_retrieve)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending, timeout=_DRAIN_S)


def _retrieve(task: asyncio.Task[list[Candidate]]) -> None:
    """Take the exception, so that asyncio does not log a failure that is data, or that nobody waits for."""
    if not task.cancelled():
        task.exception()


def _failure(call: Call, state: _Progress, task: asyncio.Task[list[Candidate]], deadline_s: float) -> Failure:
    """What became of a call without an answer; adds the bill of an attempt that was cut off."""
    error = task.exception() if task.done() and not task.cancelled() else None
    if isinstance(error, ProviderError):
        kind, message = error.kind, error.message
    elif error is not None:
        raise error  # neither an answer nor an Exception: SystemExit and its like are not ours to keep
    else:
        kind, message = "timeout", f"no answer within the deadline of {deadline_s:g} s"
        if state.last_error is not None:
            message += f"; the attempt before failed: {state.last_error.kind}: {state.last_error.message}"
        if len(state.lost) < state.attempts:  # cut off in flight, not between two attempts
            state.lost.append(_estimate(call))
    return Failure(
        model=error.model if isinstance(error, ProviderError) else call.provider.model,
        kind=kind,
        message=message,
        latency_s=state.latency_s,
        attempts=max(1, state.attempts),
        usage=sum((bill.usage for bill in state.lost), Usage()),
        cost=total_cost(bill.cost for bill in state.lost),
    )


def _bill(call: Call, error: ProviderError) -> Bill:
    """What a failed attempt cost: what it says; an estimate if it was perhaps worked on; else nothing."""
    if error.usage is not None:
        return Bill(error.usage, error.cost)
    return _estimate(call) if error.kind in _PERHAPS_BILLED else Bill(Usage(), 0.0)


def _estimate(call: Call) -> Bill:
    """A lower bound for an attempt that reported nothing: its prompt was read, what it wrote is unknown."""
    usage = estimated_usage(call.request.messages, tools=call.request.params.get("tools"))
    try:
        return Bill(usage, call.provider.price(usage) if isinstance(call.provider, Priced) else None)
    except Exception:  # a provider's defect, and a price that is not known
        return Bill(usage, None)


def _no_candidates(gathered: Gathered, usable: int, needed: int) -> NoCandidates:
    reasons = [
        ProviderError(failure.message, kind=failure.kind, model=failure.model, usage=failure.usage, cost=failure.cost)
        for failure in gathered.failures
    ]
    reasons += [
        ProviderError(
            f"{candidate.rejected} (finish reason {candidate.finish_reason!r})",
            kind="invalid_response",
            model=candidate.model,
            usage=candidate.usage,
            cost=candidate.cost,
        )
        for candidate in gathered.candidates
        if candidate.rejected
    ]
    message = f"{usable} usable answers, {needed} needed"
    if not reasons:
        reasons = [ProviderError(message, kind="invalid_response", model=gathered.candidates[0].model)]
    return NoCandidates(message, reasons, usage=gathered.usage, cost=gathered.cost)

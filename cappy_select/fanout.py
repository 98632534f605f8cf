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
    wait_random_exponential,
)

from cappy_select.errors import RETRYABLE, NoCandidates, ProviderError
from cappy_select.providers import Priced, Provider
from cappy_select.types import Candidate, Failure, Request, Usage, estimated_usage, total_cost

_DRAIN_S = 0.25  # for cancelled calls to close their connections; one that will not end is left behind


class FanOutConfig(BaseModel):
    """How long to wait for the answers, and how many are enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deadline_s: float = Field(60.0, gt=0, description="for all calls together, retries included")
    min_usable: int = Field(1, ge=1, description="answers that are not empty; with fewer there is no selection")
    max_retries: int = Field(2, ge=0, description="of one call, on rate limits, timeouts and server errors")


@dataclass(frozen=True)
class Call:
    """One upstream call to make."""

    provider: Provider
    request: Request


@dataclass(frozen=True)
class Gathered:
    """What came back: candidates in request order (empty ones rejected), failures in request order."""

    candidates: tuple[Candidate, ...]
    failures: tuple[Failure, ...]

    @property
    def _billed(self) -> list[Candidate | Failure]:
        return [*self.candidates, *self.failures]

    @property
    def usage(self) -> Usage:
        """Over all calls, the failed ones too."""
        return sum((part.usage for part in self._billed), Usage())

    @property
    def cost(self) -> float | None:
        """Dollars over all calls; None when a price is unknown."""
        return total_cost(part.cost for part in self._billed)


@dataclass
class _Attempts:
    """What is known of a call while it runs, so that a cancelled one can still say how it went."""

    started: float = field(default_factory=time.perf_counter)
    count: int = 0
    last_error: ProviderError | None = None


async def fan_out(calls: Sequence[Call], config: FanOutConfig) -> Gathered:
    """Make all calls at once and gather what arrives before the deadline.

    Every task is cancelled and drained on every way out, the caller's own cancellation included.

    Raises NoCandidates when fewer than `config.min_usable` usable answers arrived.
    """
    attempts = [_Attempts() for _ in calls]
    tasks = [
        asyncio.create_task(_complete(call, state, config.max_retries))
        for call, state in zip(calls, attempts, strict=True)
    ]
    try:
        await asyncio.wait(tasks, timeout=config.deadline_s)
    finally:
        await _drain(tasks)
    candidates: list[Candidate] = []
    failures: list[Failure] = []
    for call, state, task in zip(calls, attempts, tasks, strict=True):
        if not task.done() or task.cancelled():
            failures.append(_late(call, state, config.deadline_s))
        elif (error := task.exception()) is not None:
            failures.append(_failed(call, state, _as_provider_error(call, error)))
        else:
            arrived, latency_s = task.result()
            candidates += [
                candidate.model_copy(
                    update={
                        "index": len(candidates) + position,
                        "latency_s": latency_s,
                        "rejected": None if is_usable(candidate) else "empty answer",
                    }
                )
                for position, candidate in enumerate(arrived)
            ]
    gathered = Gathered(tuple(candidates), tuple(failures))
    usable = sum(candidate.rejected is None for candidate in candidates)
    if usable < config.min_usable:
        raise _no_candidates(gathered, usable, config.min_usable)
    return gathered


def is_usable(candidate: Candidate) -> bool:
    """An answer with text, or with a tool call, can win."""
    return bool(candidate.text.strip() or candidate.message.get("tool_calls"))


async def _complete(call: Call, state: _Attempts, max_retries: int) -> tuple[list[Candidate], float]:
    retrying = AsyncRetrying(
        stop=stop_after_attempt(max_retries + 1),
        wait=_wait,
        retry=retry_if_exception(lambda error: isinstance(error, ProviderError) and error.kind in RETRYABLE),
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            state.count += 1
            try:
                return await call.provider.complete(call.request), time.perf_counter() - state.started
            except ProviderError as error:
                state.last_error = error
                raise
    raise AssertionError("unreachable: tenacity returns or raises")


_backoff = wait_random_exponential(multiplier=0.25, max=8.0)


def _wait(state: RetryCallState) -> float:
    """The provider's own Retry-After where it gave one, else jittered exponential back-off."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ProviderError) and error.retry_after_s is not None:
        return error.retry_after_s
    return _backoff(state)


def _as_provider_error(call: Call, error: BaseException) -> ProviderError:
    """A provider's own defect must not cost the answers of the others: it is one more failure, named."""
    if isinstance(error, ProviderError):
        return error
    if not isinstance(error, Exception):
        raise error
    return ProviderError(f"{type(error).__name__}: {error}", kind="invalid_response", model=call.provider.model)


async def _drain(tasks: Sequence[asyncio.Task[tuple[list[Candidate], float]]]) -> None:
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending, timeout=_DRAIN_S)


def _late(call: Call, state: _Attempts, deadline_s: float) -> Failure:
    message = f"no answer within the deadline of {deadline_s:g} s"
    if state.last_error is not None:
        message += f"; the attempt before failed: {state.last_error.kind}: {state.last_error.args[0]}"
    usage = estimated_usage(call.request.messages)  # a lower bound: what it wrote is unknown
    cost = call.provider.price(usage) if isinstance(call.provider, Priced) else None
    return Failure(
        model=call.provider.model,
        kind="timeout",
        message=message,
        latency_s=time.perf_counter() - state.started,
        attempts=max(1, state.count),
        usage=usage,
        cost=cost,
    )


def _failed(call: Call, state: _Attempts, error: ProviderError) -> Failure:
    # A call that was refused costs nothing; one that timed out upstream was probably worked on.
    lost = error.kind == "timeout" and error.usage is None
    usage = estimated_usage(call.request.messages) if lost else error.usage or Usage()
    cost = call.provider.price(usage) if lost and isinstance(call.provider, Priced) else error.cost
    return Failure(
        model=error.model,
        kind=error.kind,
        message=str(error.args[0]),
        latency_s=time.perf_counter() - state.started,
        attempts=max(1, state.count),
        usage=usage,
        cost=0.0 if usage == Usage() and cost is None else cost,
    )


def _no_candidates(gathered: Gathered, usable: int, needed: int) -> NoCandidates:
    reasons = [ProviderError(f.message, kind=f.kind, model=f.model) for f in gathered.failures] + [
        ProviderError(
            f"{candidate.rejected} (finish reason {candidate.finish_reason!r})",
            kind="invalid_response",
            model=candidate.model,
        )
        for candidate in gathered.candidates
        if candidate.rejected
    ]
    if not reasons:
        reasons = [ProviderError("fewer calls were made than answers are needed", kind="bad_request", model="all")]
    message = f"{usable} usable answers, {needed} needed"
    return NoCandidates(message, reasons, usage=gathered.usage, cost=gathered.cost)

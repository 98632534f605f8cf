"""A call with retries and a bill: one call to one provider, made again while its error is one that passes.

The fan-out and the bulk calls make their calls with it. When a call may be made, and whose money pays for it, they
say themselves.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from cappy_select.ask.breaker import Budget
from cappy_select.ask.calls import (
    Bill,
    Brought,
    Call,
    bill_of,
    complete_once,
    error_of,
    estimated_bill,
    total,
)
from cappy_select.core.errors import ProviderError
from cappy_select.core.masking import masked
from cappy_select.core.types import RETRYABLE, FailureKind

_OURS = frozenset({"unavailable", "budget", "cancelled"})  # kinds that say nothing about the provider
_TIMER_S = 0.001  # a deadline's timer may be early by so much

_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class RetriedCall:
    """One call with its retries. It says at any moment how it went, also after it was cancelled.

    Args:
        call: What to ask of whom.
        deadline: When its time is up, by `time.perf_counter`. Whoever runs it cancels it then.
        max_retries: How often it is made again at most.

    Attributes:
        attempts: How often it was made.
        lost: The bills of what was paid for and brought nothing.
        last_error: Of the attempt before, or what refused it.
        brought: What it brought; None until it did.
        trial: It decides for the calls that wait for the provider's breaker.
        over: Nothing more is wanted of it.
    """

    call: Call
    deadline: float
    max_retries: int
    started: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    attempts: int = 0
    lost: list[Bill] = field(default_factory=list)
    last_error: ProviderError | None = None
    brought: Brought | None = None
    trial: bool = False
    over: bool = False
    _attempt_began: float = 0.0

    @property
    def latency_s(self) -> float:
        """Seconds from its start to its end, or to now."""
        return (self.ended or time.perf_counter()) - self.started

    async def run(self, attempt: Callable[[], Awaitable[Brought]]) -> Brought:
        """Make the call until it brings something, fails for good, or has no time left for another attempt.

        Args:
            attempt: Asks whether it may be made (`admit`, a budget), and makes it (`make`).

        Raises:
            ProviderError: it failed; the error of the last attempt.
        """
        retrying = AsyncRetrying(
            stop=lambda state: stop_after_attempt(self.max_retries + 1)(state) or self._gives_up(state),
            wait=wait_before_retry,
            retry=retry_if_exception(lambda error: isinstance(error, ProviderError) and error.kind in RETRYABLE),
            before_sleep=self._log_retry,
            reraise=True,
        )
        breaker = self.call.breaker
        try:
            async for again in retrying:
                with again:
                    async with breaker.place():
                        self.brought = await attempt()
            breaker.ended(None)
        except ProviderError as error:
            if error.kind not in _OURS:
                breaker.ended(error)
            elif self.trial:
                breaker.abandoned()
            raise
        except asyncio.CancelledError:
            waited, whole = time.perf_counter() - self._attempt_began, self.deadline - self.started
            # One that had little time, because it waited its turn, says nothing about the provider.
            if time.perf_counter() >= self.deadline - _TIMER_S and self.cut_off and waited > whole / 2:
                breaker.ended(error_of(self.call, "timeout", f"no answer in {waited:.1f} s"))
            elif self.trial:
                breaker.abandoned()
            raise
        finally:
            self.ended = time.perf_counter()
        assert self.brought is not None  # noqa: S101 - the loop ends with an answer or raises
        return self.brought

    def admit(self) -> str | None:
        """Ask the breaker: why the call may not be made now; None: it may."""
        if self.trial:
            return None
        refusal, self.trial = self.call.breaker.admit()
        return refusal

    async def make(self, budget: Budget, promised: float) -> Brought:
        """Make it once, with so many dollars kept for it. Raises ProviderError."""
        self.attempts += 1
        self._attempt_began = time.perf_counter()
        try:
            brought = await complete_once(self.call, budget, promised)
        except ProviderError as error:
            self.last_error = error
            self.lost.append(bill_of(self.call, error))
            raise
        self.lost += brought.lost
        return brought

    def refused(self, kind: FailureKind, message: str) -> ProviderError:
        """The error of a call that may not be made, or not again."""
        self.last_error = error_of(self.call, kind, message)
        return self.last_error

    @property
    def cut_off(self) -> bool:
        """Whether it ended in the middle of an attempt."""
        return self.brought is None and self.attempts > len(self.lost)

    def bill(self) -> Bill:
        """Of the attempts that brought nothing; one that was cut off counts as what it cost at least."""
        return total([*self.lost, *([estimated_bill(self.call)] if self.cut_off else [])])

    def after_last_error(self, message: str) -> str:
        """The message, with the error of the attempt before, if there was one."""
        if self.last_error is None:
            return message
        return f"{message}; the attempt before failed: {self.last_error.kind}: {self.last_error.message}"

    def _gives_up(self, state: RetryCallState) -> bool:
        # A wait that would end beyond the deadline is not begun: the error is the answer, now.
        return self.over or time.perf_counter() + state.upcoming_sleep > self.deadline

    def _log_retry(self, state: RetryCallState) -> None:
        error = self.last_error
        _logger.info(
            "%s: %s, asked again in %.2f s (retry %d of %d)",
            masked(str(self.call.provider.model)),
            error.kind if error else "failed",
            state.upcoming_sleep,
            state.attempt_number,
            self.max_retries,
        )


_backoff = wait_random_exponential(multiplier=0.25, max=8.0)


def wait_before_retry(state: RetryCallState) -> float:
    """The provider's own Retry-After where it gave one, else jittered exponential back-off."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ProviderError) and error.retry_after_s is not None:
        # A little later, each at its own time: calls that were refused together must not come back together.
        return error.retry_after_s * random.uniform(1.0, 1.1) + random.uniform(0.0, 0.1)  # noqa: S311
    return _backoff(state)

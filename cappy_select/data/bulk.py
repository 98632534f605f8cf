"""Many paid calls, one after another and side by side: with a pace, a budget, and an end when a model is down.

Whatever a call brings is kept before its place is given to the next one, so a kill costs at most the calls
that were in flight.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from cappy_select.ask.breaker import PROVIDER_DOWN, Budget
from cappy_select.ask.calls import (
    Bill,
    Brought,
    Call,
    bill_of,
    calls_for_missing,
    error_of,
    estimated_bill,
    highest_price,
    price_of,
    settled_at,
)
from cappy_select.ask.limits import FanOutConfig
from cappy_select.ask.prices import estimated_usage
from cappy_select.ask.retries import RetriedCall
from cappy_select.ask.sampling import token_limit
from cappy_select.core.errors import DataError, ProviderError
from cappy_select.core.types import Candidate, Request, total_cost
from cappy_select.data.store import SampleStore

_T = TypeVar("_T")

ASSUMED_TOKENS = 256  # of an answer that has no `max_tokens`
_PATIENCE_S = 0.05  # between looks at what other calls have left of the money
_LOOK_S = 0.25  # between looks at whether a model that is left alone was given up


class Limits(BaseModel):
    """Of a long run of calls. `timeout_s` is a call's, retries included."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    concurrency: int = Field(16, ge=1, description="calls to one model at a time")
    per_minute: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="calls to one model begun a minute, retries apart"
    )
    max_cost: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        strict=True,
        description="dollars, with what was spent before; firm when calls have `max_tokens`, else by guesses",
    )
    timeout_s: float = Field(120.0, gt=0, allow_inf_nan=False)
    max_retries: int = Field(4, ge=0)
    give_up_after: int = Field(20, ge=1, description="failed calls of a model in a row, whatever the reason")
    cool_down_after: int = Field(5, ge=1, description="calls in a row that find a model down: it is left alone then")
    cool_down_s: float = Field(30.0, ge=0, allow_inf_nan=False, description="for so long; then one call tries it")
    max_pauses: int = Field(3, ge=1, description="such pauses in a row after which it is down still: it is given up")

    def fan_out(self) -> FanOutConfig:
        """The same, for one call."""
        return FanOutConfig(
            deadline_s=self.timeout_s,
            max_retries=self.max_retries,
            max_concurrency=self.concurrency,
            cool_down_after=self.cool_down_after,
            cool_down_s=self.cool_down_s,
        )


class BulkCall(NamedTuple):
    """A call, and what to do with what it brings. `keep` and `fail` run in a thread.

    `keep` gets an answer, and its number among those asked of the model; within one transaction of the store. `fail`
    gets what went wrong.
    """

    call: Call
    keep: Callable[[Candidate, int], None]
    fail: Callable[[Sequence[ProviderError]], None]


@dataclass
class Outcome:
    """What became of a run of bulk calls. `stopped` says, by model, why not all of its calls were made.

    `cost` is dollars, None when a price is unknown; a call whose end is not known counts as what was promised for it.
    """

    answers: int = 0
    failures: int = 0
    cost: float | None = 0.0
    stopped: dict[str, str] = field(default_factory=dict)


OnProgress = Callable[[Outcome], None]


async def run_bulk(
    by_model: Sequence[tuple[str, Iterable[BulkCall]]], limits: Limits, store: SampleStore, *, on_progress: OnProgress
) -> Outcome:
    """Make all calls, those of each model in order, the models side by side.

    Args:
        by_model: The bulk calls are made as they are needed, so there may be any number.
        limits: What may be done. What was spent in the store before counts towards the money.
        store: Gets the bills.
        on_progress: Called whenever a call has ended.

    Raises InputError when the money limit can't be kept, DataError when the store can't be written.
    """
    outcome = Outcome()
    budget = Budget(limits.max_cost, spent=store.spent_towards(limits.max_cost))
    tasks = [
        asyncio.create_task(_ModelCalls(model, limits, budget, store, outcome, on_progress).run(bulk_calls))
        for model, bulk_calls in by_model
    ]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return outcome


class _Kept:
    """What one bulk call brings is kept before its place is given to another call.

    Each attempt is promised on the budget and noted in the store before it is made, so that one whose end nobody
    sees, for the process is killed, counts as what it may have cost.
    """

    def __init__(
        self,
        bulk_call: BulkCall,
        store: SampleStore,
        budget: Budget,
        promise_of: Callable[[Call], float | None],
        promised: float | None,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._bulk_call, self._store, self._budget, self._promise_of = bulk_call, store, budget, promise_of
        self._is_stopped = is_stopped  # its model was given up meanwhile
        self._first: list[float | None] = [promised]  # for the first attempt, set aside already
        self._costs: list[float | None] = []  # that count, by attempt
        self.kept = 0
        self.dearest = 0.0
        self.not_kept: list[ProviderError] = []  # answers that the store can't hold
        self.error: Exception | None = None  # of the store

    @property
    def cost(self) -> float | None:
        """Dollars that count, over all attempts; None: unknown."""
        return total_cost(self._costs)

    async def attempt(self, asked: RetriedCall) -> Brought:
        """Make the call once, when its provider is not left alone and there is money for it."""
        while (refusal := asked.admit()) is not None:
            pause = asked.call.breaker.pause_s
            if self._is_stopped() or time.perf_counter() + pause > asked.deadline:
                raise asked.refused("unavailable", f"not asked{' again' if asked.attempts else ''}: {refusal}")
            await asyncio.sleep(min(pause, _LOOK_S))
        call = asked.call
        promised = await self._promise(asked)
        place, counts = len(self._costs), estimated_bill(call).cost if promised is None else promised
        self._costs.append(counts)
        number = await self._in_store(lambda: self._store.promise(call.provider.model, counts))
        began = time.perf_counter()
        try:
            brought = await asked.make(self._budget, promised or 0.0)
        except ProviderError as error:
            lost = self._costs[place] = self._counting(bill_of(call, error), promised)
            await self._in_store(lambda: self._store.settle(number, lost))
            raise
        self._costs[place] = self._counting(brought.bill, promised)
        seconds = time.perf_counter() - began
        answers = [answer.model_copy(update={"latency_s": seconds}) for answer in brought.answers]
        await self._in_store(lambda: self._keep(answers, call.request, number, self._costs[place]))
        return brought

    def release(self) -> None:
        """Give back what was set aside for a call that was never made."""
        while self._first:
            self._budget.settle(self._first.pop() or 0.0, 0.0)

    async def _promise(self, asked: RetriedCall) -> float | None:
        """Dollars that are set aside for an attempt. Raises ProviderError when they can't be."""
        if self._first:
            return self._first.pop()
        promised = self._promise_of(asked.call)
        while refusal := self._budget.promise(promised or 0.0):
            if not self._budget.under_way:
                raise asked.refused("budget", refusal)
            await asyncio.sleep(_PATIENCE_S)  # what costs less than promised makes room
        return promised

    def _counting(self, bill: Bill, promised: float | None) -> float | None:
        if bill.cost is not None and not bill.usage.estimated:
            self.dearest = max(self.dearest, bill.cost)
        return bill.cost if promised is None else settled_at(promised, bill)

    async def _in_store(self, task: Callable[[], _T]) -> _T:
        """Done to its end, whoever is cancelled meanwhile."""
        try:
            return await asyncio.shield(asyncio.to_thread(task))
        except Exception as error:  # ours, not the provider's: asking again would be paid for, and lost, again
            self.error = error
            raise error_of(self._bulk_call.call, "bad_request", f"not kept: {error}") from error

    def _keep(self, answers: Sequence[Candidate], request: Request, number: int | None, counts: float | None) -> None:
        """Keep each answer that can be kept, and what was paid beside those, all at once."""
        paid: list[float | None] = []
        with self._store.at_once():
            for place, answer in enumerate(answers):
                if answer.cost is None and counts is not None:  # its figures were none: its share of what counts
                    answer = answer.model_copy(update={"cost": counts / len(answers)})
                try:
                    self._bulk_call.keep(answer, request.sample + place)
                except DataError:
                    raise
                except Exception as error:  # one that the store can't hold is lost alone
                    why = f"the answer can't be kept: {type(error).__name__}: {error}"
                    self.not_kept.append(error_of(self._bulk_call.call, "invalid_response", why))
                else:
                    paid.append(answer.cost)
            # An answer without a price is stored as such: that the sum is unknown need not be said twice.
            stored = total_cost(paid)
            beside = 0.0 if stored is None else None if counts is None else max(0.0, round(counts - stored, 12))
            self._store.settle(number, beside)
        self.kept += len(paid)


class _ModelCalls:
    """One model's bulk calls."""

    def __init__(
        self,
        model: str,
        limits: Limits,
        budget: Budget,
        store: SampleStore,
        outcome: Outcome,
        on_progress: OnProgress,
    ) -> None:
        self._model, self._limits, self._budget, self._store = model, limits, budget, store
        self._outcome, self._on_progress = outcome, on_progress
        self._failed_in_a_row = 0
        self._pauses = 0  # after which it still failed, in a row
        self._dearest = 0.0
        self._next_turn = 0.0

    async def run(self, bulk_calls: Iterable[BulkCall]) -> None:
        running: set[asyncio.Task[None]] = set()
        try:
            for bulk_call in bulk_calls:
                if len(running) >= self._limits.concurrency:
                    running = await _some_ended(running)
                while (pause := bulk_call.call.breaker.pause_s) and self._model not in self._outcome.stopped:
                    running = await _some_ended(running, pause)  # which may end the pause, or the run
                if self._model in self._outcome.stopped:
                    break
                promised = self._promised(bulk_call.call)
                while (refusal := self._budget.promise(promised or 0.0)) and self._budget.under_way:
                    running = await _some_ended(running)  # what it cost less than promised may do
                if refusal:
                    self._outcome.stopped[self._model] = refusal
                    break
                await self._turn()
                running.add(asyncio.create_task(self._do(bulk_call, promised)))
                await asyncio.sleep(0)
            while running:
                running = await _some_ended(running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _promised(self, call: Call) -> float | None:
        """Dollars to set aside for a call: its bound, if it has one; else, under a limit, a guess, at least the
        dearest so far. None: there is no limit, and no bound."""
        highest = highest_price(call)
        if self._limits.max_cost is None:
            return highest if math.isfinite(highest) and token_limit(call.request.params) else None
        if token_limit(call.request.params):
            return highest
        return max(highest, likely_price(call) or 0.0, self._dearest)

    async def _turn(self) -> None:
        """Wait until the pace allows another call."""
        if self._limits.per_minute is not None:
            now = time.monotonic()
            at = max(now, self._next_turn)
            self._next_turn = at + 60 / self._limits.per_minute
            await asyncio.sleep(at - now)

    async def _do(self, bulk_call: BulkCall, promised: float | None) -> None:
        kept = _Kept(
            bulk_call, self._store, self._budget, self._promised, promised, lambda: self._model in self._outcome.stopped
        )
        calls = [bulk_call.call]
        failures: list[ProviderError] = []
        failed_trial = False
        until = time.perf_counter() + self._limits.timeout_s
        try:
            while calls:  # in turn: a call that brings too few answers is followed by calls for one each
                asked = RetriedCall(calls.pop(0), until, self._limits.max_retries)
                try:
                    async with asyncio.timeout(until - time.perf_counter()):
                        brought = await asked.run(partial(kept.attempt, asked))
                    if bulk_call.call is asked.call and len(brought.answers) < asked.call.request.n:
                        calls += calls_for_missing(asked.call, len(brought.answers))
                except TimeoutError:
                    late = f"no answer within the deadline of {self._limits.timeout_s:g} s"
                    failures.append(error_of(asked.call, "timeout", asked.after_last_error(late)))
                    failed_trial |= asked.trial
                except ProviderError as error:
                    failures.append(error)
                    failed_trial |= asked.trial and error.kind in PROVIDER_DOWN
        finally:
            kept.release()
        if kept.error is not None:
            raise kept.error
        failures += kept.not_kept
        self._dearest = max(self._dearest, kept.dearest)
        if failures:
            await asyncio.shield(asyncio.to_thread(bulk_call.fail, failures))
        self._note(kept, failures, failed_trial=failed_trial)

    def _note(self, kept: _Kept, failures: Sequence[ProviderError], *, failed_trial: bool) -> None:
        outcome, model = self._outcome, self._model
        outcome.answers += kept.kept
        outcome.failures += len(failures)
        outcome.cost = None if outcome.cost is None or kept.cost is None else outcome.cost + kept.cost
        self._failed_in_a_row = 0 if kept.kept else self._failed_in_a_row + 1
        self._pauses = 0 if kept.kept else self._pauses + failed_trial
        if failures and failures[-1].kind == "budget":
            outcome.stopped.setdefault(model, failures[-1].message)
        elif failures and not kept.kept:
            last = failures[-1]
            why = f"{self._failed_in_a_row} calls failed in a row, the last one: {last.kind}: {last.message}"
            if self._pauses >= self._limits.max_pauses:
                times = "once" if self._pauses == 1 else f"{self._pauses} times"
                why = f"left alone for {self._limits.cool_down_s:g} s {times}, and it still fails; {why}"
                outcome.stopped.setdefault(model, why)
            elif last.kind == "auth" or self._failed_in_a_row >= self._limits.give_up_after:
                outcome.stopped.setdefault(model, why)
        self._on_progress(outcome)


def likely_price(call: Call) -> float | None:
    """Dollars that a call will about cost; None when its price is unknown."""
    tokens = token_limit(call.request.params) or ASSUMED_TOKENS
    usage = estimated_usage(call.request.messages).model_copy(update={"completion_tokens": call.request.n * tokens})
    return price_of(call.provider, usage)


async def _some_ended(running: set[asyncio.Task[None]], seconds: float | None = None) -> set[asyncio.Task[None]]:
    """Those that still run, once some ended, or after so many seconds; if there are none, those of another model may
    have ended."""
    if not running:
        await asyncio.sleep(_PATIENCE_S if seconds is None else seconds)
        return running
    done, pending = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()  # an error of the store ends the run
    return pending

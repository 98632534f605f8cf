"""Many paid calls, one after another and side by side: with a pace, a budget, and an end when a model is down.

Whatever a call brings is kept before its place is given to the next one, so a kill costs at most the calls
that were in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from cappy_select.calls import Call, checked, error_of, highest_price, price_of
from cappy_select.errors import NoCandidates, ProviderError
from cappy_select.fanout import FanOutConfig, fan_out
from cappy_select.lanes import Budget
from cappy_select.types import Candidate, Request, Usage, estimated_usage, total_cost

ASSUMED_TOKENS = 256  # of an answer that has no `max_tokens`


class Limits(BaseModel):
    """Of a long run of calls. `timeout_s` is a call's, retries included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int = Field(16, ge=1, description="calls to one model at a time")
    per_minute: float | None = Field(None, gt=0, description="calls to one model begun a minute, retries apart")
    max_cost: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="dollars, with what was spent before; firm when calls have `max_tokens`, else by guesses",
    )
    timeout_s: float = Field(120.0, gt=0, allow_inf_nan=False)
    max_retries: int = Field(4, ge=0)
    give_up_after: int = Field(20, ge=1, description="failed calls of a model in a row")

    def fan_out(self) -> FanOutConfig:
        """The same, for one call."""
        return FanOutConfig(deadline_s=self.timeout_s, max_retries=self.max_retries, max_concurrency=self.concurrency)


class Errand(NamedTuple):
    """A call, and what to do with what it brings. `keep` and `fail` run in a thread.

    `keep` gets the answers of one request: the call's, or one for answers that the call did not bring. `fail` gets
    what went wrong, and what attempts in vain cost (None: unknown).
    """

    call: Call
    keep: Callable[[Sequence[Candidate], Request], None]
    fail: Callable[[Sequence[ProviderError], float | None], None]


@dataclass
class Outcome:
    """What became of a run of errands. `stopped` says, by model, why not all of its calls were made."""

    answers: int = 0
    failures: int = 0
    cost: float | None = 0.0
    stopped: dict[str, str] = field(default_factory=dict)


OnProgress = Callable[[Outcome], None]


async def run_errands(
    lines: Sequence[tuple[str, Iterable[Errand]]], limits: Limits, *, spent: float = 0.0, on_progress: OnProgress
) -> Outcome:
    """Do all errands, those of each line (a model and its errands) in order, the lines side by side.

    Args:
        lines: The errands are made as they are needed, so there may be any number.
        limits: What may be done.
        spent: Dollars that count towards `limits.max_cost` already.
        on_progress: Called whenever a call has ended.
    """
    outcome = Outcome()
    budget = Budget(limits.max_cost)
    budget.spent = spent
    tasks = [
        asyncio.create_task(_Line(model, limits, budget, outcome, on_progress).run(errands)) for model, errands in lines
    ]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return outcome


class _Keeper:
    """An errand's provider, which keeps what it brings before it gives its place to another call."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self.kept = 0
        self.error: Exception | None = None

    @property
    def model(self) -> str:
        return self._errand.call.provider.model

    def price(self, usage: Usage) -> float | None:
        return price_of(self._errand.call.provider, usage)

    async def complete(self, request: Request) -> list[Candidate]:
        began = time.perf_counter()
        answers = checked(await self._errand.call.provider.complete(request), self._errand.call)
        seconds = time.perf_counter() - began
        kept = [answer.model_copy(update={"latency_s": seconds}) for answer in answers[: request.n]]
        try:
            await asyncio.shield(asyncio.to_thread(self._errand.keep, kept, request))
        except Exception as error:  # ours, not the provider's: asking again would be paid for, and lost, again
            self.error = error
            raise error_of(self._errand.call, "bad_request", f"not kept: {error}") from error
        self.kept += len(kept)
        return answers


async def _all_can_win(answers: Sequence[tuple[Candidate, Request]], seconds: float) -> list[Candidate]:
    """Empty and cut-off answers too: a scorer learns from them."""
    return [candidate for candidate, _ in answers]


class _Line:
    """One model's errands."""

    def __init__(self, model: str, limits: Limits, budget: Budget, outcome: Outcome, on_progress: OnProgress) -> None:
        self._model, self._limits, self._budget = model, limits, budget
        self._outcome, self._on_progress = outcome, on_progress
        self._config = limits.fan_out()
        self._failed_in_a_row = 0
        self._dearest = 0.0
        self._next_turn = 0.0

    async def run(self, errands: Iterable[Errand]) -> None:
        running: set[asyncio.Task[None]] = set()
        try:
            for errand in errands:
                if len(running) >= self._limits.concurrency:
                    running = await _some_ended(running)
                if self._model in self._outcome.stopped:
                    break
                estimate = self._promised(errand.call) if self._limits.max_cost is not None else 0.0
                while (refusal := self._budget.promise(estimate)) and running:
                    running = await _some_ended(running)  # what it cost less than promised may do
                if refusal:
                    self._outcome.stopped[self._model] = refusal
                    break
                await self._turn()
                running.add(asyncio.create_task(self._do(errand, estimate)))
                await asyncio.sleep(0)
            while running:
                running = await _some_ended(running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _promised(self, call: Call) -> float:
        """Dollars to set aside for a call: its bound, if it has one; else a guess, at least the dearest so far."""
        if call.request.params.get("max_tokens"):
            return highest_price(call)
        return max(highest_price(call), likely_price(call) or 0.0, self._dearest)

    async def _turn(self) -> None:
        """Wait until the pace allows another call."""
        if self._limits.per_minute is not None:
            now = time.monotonic()
            at = max(now, self._next_turn)
            self._next_turn = at + 60 / self._limits.per_minute
            await asyncio.sleep(at - now)

    async def _do(self, errand: Errand, estimate: float) -> None:
        keeper = _Keeper(errand)
        failures: list[ProviderError] = []
        try:
            gathered = await fan_out([replace(errand.call, provider=keeper)], self._config, judge=_all_can_win)
            cost = gathered.cost
            failures = [ProviderError(f.message, kind=f.kind, model=f.model) for f in gathered.failures]
            answers = total_cost(candidate.cost for candidate in gathered.candidates)
            # An answer without a price is stored as such: that the sum is unknown need not be said twice.
            paid_in_vain = 0.0 if answers is None else None if cost is None else round(cost - answers, 12)
        except NoCandidates as error:
            cost = paid_in_vain = error.cost
            failures = [failure for failure in error.exceptions if isinstance(failure, ProviderError)]
        if keeper.error is not None:
            raise keeper.error
        self._budget.settle(estimate, cost)
        self._dearest = max(self._dearest, cost or 0.0)
        if failures or paid_in_vain != 0:
            await asyncio.shield(asyncio.to_thread(errand.fail, failures, paid_in_vain))
        self._note(keeper.kept, failures, cost)

    def _note(self, brought: int, failures: Sequence[ProviderError], cost: float | None) -> None:
        outcome = self._outcome
        outcome.answers += brought
        outcome.failures += len(failures)
        outcome.cost = None if outcome.cost is None or cost is None else outcome.cost + cost
        self._failed_in_a_row = 0 if brought else self._failed_in_a_row + 1
        if failures and not brought:
            last = failures[-1]
            if last.kind == "auth" or self._failed_in_a_row >= self._limits.give_up_after:
                why = f"{self._failed_in_a_row} calls failed in a row, the last one: {last.kind}: {last.message}"
                outcome.stopped.setdefault(self._model, why)
        self._on_progress(outcome)


def likely_price(call: Call) -> float | None:
    """Dollars that a call will about cost; None when its price is unknown."""
    tokens = int(call.request.params.get("max_tokens") or ASSUMED_TOKENS)
    usage = estimated_usage(call.request.messages).model_copy(update={"completion_tokens": call.request.n * tokens})
    return price_of(call.provider, usage)


async def _some_ended(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    done, pending = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()  # an error of the store ends the run
    return pending

"""Many calls at once: what arrives in time is an answer, everything else a failure with its reason.

A failed call is data while enough others may arrive. Nothing outlives the fan-out: on every way out each
call is cancelled and waited for, and what it spent is on the bill.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cappy_select.ask.breaker import Budget
from cappy_select.ask.calls import Bill, Brought, Call, calls_for_missing, highest_price, total
from cappy_select.ask.complete import Complete
from cappy_select.ask.limits import FanOutConfig
from cappy_select.ask.retries import RetriedCall
from cappy_select.core.errors import NoCandidates, ProviderError
from cappy_select.core.types import Candidate, Ended, Failure, FailureKind, Request, Usage

_DRAIN_S = 0.25  # for cancelled calls to close their connections; one that will not end is left behind


@dataclass(frozen=True)
class FanOutResult:
    """What came back, in request order, why nothing more did, and what it cost.

    `usage` and `cost` cover all calls: those that failed, and attempts that failed before one that did not.
    """

    candidates: tuple[Candidate, ...]
    failures: tuple[Failure, ...]
    usage: Usage
    cost: float | None
    ended: Ended = "complete"


Screen = Callable[[Sequence[tuple[Candidate, Request]], float], Awaitable[list[Candidate]]]
"""Sets `rejected` of the answers that can't win (and `score`, if it knows), as they arrive, in so many seconds."""

_LEAST_SCREENING_S = 0.1  # for what arrives at the deadline
_Why = Ended | Literal["out of reach"]


@dataclass(eq=False)
class _Run:
    """One call of the fan-out, and what its screen made of its answers. `place` is its request order."""

    call: RetriedCall
    place: tuple[int, int]
    answers: list[Candidate] | None = None
    followed: bool = False  # by calls for the answers it did not bring

    @property
    def asked(self) -> Request:
        return self.call.call.request


async def fan_out(
    calls: Sequence[Call],
    config: FanOutConfig,
    *,
    screen: Screen | None = None,
    good_enough: Callable[[Candidate], bool] = lambda candidate: False,
) -> FanOutResult:
    """Make all calls at once and gather what arrives before the deadline, or until enough is there.

    Args:
        calls: In the order that breaks ties. A call that brings fewer answers than it asked for is followed
            by calls for one each.
        screen: Says which answers can win; None: those that are `Complete`.
        good_enough: An answer that ends the fan-out at once.

    Raises NoCandidates when fewer than `config.min_usable` usable answers arrived.
    """
    gathering = _FanOut(config, screen or _screen_completeness, good_enough)
    try:
        for place, call in enumerate(calls):
            gathering.start(call, (place, 0))
        ended = await gathering.wait()
    finally:
        await gathering.drain()
    gathered = await gathering.gathered(ended)
    usable = sum(candidate.rejected is None for candidate in gathered.candidates)
    if usable < config.min_usable:
        raise no_candidates(gathered, usable, config.min_usable)
    return gathered


class _FanOut:
    """The calls of one fan-out, as they start, end, and are screened."""

    def __init__(self, config: FanOutConfig, screen: Screen, good_enough: Callable[[Candidate], bool]) -> None:
        self._config, self._screen, self._good_enough = config, screen, good_enough
        self._until = self._deadline = time.perf_counter() + config.deadline_s
        self._budget = Budget(config.max_cost)
        self._runs: dict[asyncio.Task[None], _Run] = {}
        self._arrived: list[_Run] = []  # calls that ended, and were not screened yet
        self._arrival = asyncio.Event()
        self._running: list[_Run] = []
        self._usable = 0
        self._over = False

    def start(self, call: Call, place: tuple[int, int]) -> None:
        run = _Run(RetriedCall(call, self._deadline, self._config.max_retries), place)
        task = asyncio.create_task(self._complete(run))
        self._runs[task] = run
        self._running.append(run)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # taken, so that asyncio does not log a failure that is data
        self._running.remove(self._runs[task])
        self._arrived.append(self._runs[task])
        self._arrival.set()

    async def wait(self) -> _Why:
        """Until all calls ended or one of the limits is reached; screens what arrives."""
        graced = good = False
        while True:
            self._arrival.clear()
            arrived = await self._take()
            if not self._running and not self._arrived:
                return "complete"
            if self._usable + self._outstanding < self._config.min_usable:
                return "out of reach"
            good = good or any(c.rejected is None and self._good_enough(c) for c in arrived)
            if good and self._usable >= self._config.min_usable:
                return "stop_when"
            if self._budget.is_spent:
                return "budget"
            if self._config.grace_s is not None and not graced and self._usable >= self._config.min_usable:
                graced, self._until = True, min(self._deadline, time.perf_counter() + self._config.grace_s)
            try:
                if (left := self._until - time.perf_counter()) <= 0:  # though more may have arrived meanwhile
                    raise TimeoutError
                async with asyncio.timeout(left):
                    await self._arrival.wait()
            except TimeoutError:
                if self._until < self._deadline:
                    return "grace"
                return "deadline"

    @property
    def _outstanding(self) -> int:
        """Answers that the calls under way may bring, and those not screened yet."""
        promising = [*self._running, *(run for run in self._arrived if run.answers is not None)]
        return sum(run.asked.n for run in promising)

    async def drain(self) -> None:
        """Cancel what runs, and wait until it is over."""
        self._over = True
        pending = {task for task in self._runs if not task.done()}
        for task in pending:
            self._runs[task].call.over = True
            task.cancel()
        if pending:
            _, stubborn = await asyncio.wait(pending, timeout=_DRAIN_S)
            for task in stubborn:  # a provider may have taken the first one for something else
                task.cancel()

    async def gathered(self, ended: _Why) -> FanOutResult:
        """All that came back, in request order."""
        await self._take()  # what arrived while the last answers were screened
        candidates: list[Candidate] = []
        failures: list[Failure] = []
        in_order = sorted(self._runs.items(), key=lambda item: item[1].place)
        for task, run in in_order:
            if run.answers is None:
                failures.append(self._failure(run, task, ended))
                continue
            candidates += [
                answer.model_copy(
                    update={
                        "latency_s": run.call.latency_s,
                        "sampling": answer.sampling | run.call.call.sampling.params,
                    }
                )
                for answer in run.answers
            ]
            if not run.followed and len(run.answers) < run.asked.n:
                kind, why = self._why_cancelled(ended)
                message = f"{len(run.answers)} of {run.asked.n} answers came; for the others: {why}"
                failures.append(Failure(model=run.call.call.provider.model, kind=kind, message=message, cost=0.0))
        bill = total(
            [Bill(candidate.usage, candidate.cost) for candidate in candidates]
            + [run.call.bill() for _, run in in_order]
        )
        return FanOutResult(
            tuple(candidate.model_copy(update={"index": index}) for index, candidate in enumerate(candidates)),
            tuple(failures),
            usage=bill.usage,
            cost=bill.cost,
            ended="complete" if ended == "out of reach" else ended,
        )

    async def _take(self) -> list[Candidate]:
        """Screen what has arrived since, and ask for what a call did not bring."""
        arrived, self._arrived = self._arrived, []
        brought = [run for run in arrived if run.answers is not None]
        if brought:
            answers = [(answer, run.asked) for run in brought for answer in run.answers or ()]
            left = max(_LEAST_SCREENING_S, self._until - time.perf_counter())
            screened = iter(await self._screen(answers, left))
            for run in brought:
                run.answers = [next(screened) for _ in run.answers or ()]
        found = [answer for run in brought for answer in run.answers or ()]
        self._usable += sum(answer.rejected is None for answer in found)
        for run in brought:
            self._ask_for_missing(run)
        return found

    def _ask_for_missing(self, run: _Run) -> None:
        """A server that ignores `n` is asked again, once for each answer."""
        have = len(run.answers or ())
        if have >= run.asked.n or self._over:
            return
        run.followed = True
        for number, call in enumerate(calls_for_missing(run.call.call, have), have):
            self.start(call, (run.place[0], number))

    async def _complete(self, run: _Run) -> None:
        run.answers = (await run.call.run(lambda: self._attempt(run.call))).answers

    async def _attempt(self, asked: RetriedCall) -> Brought:
        # The last provider standing is asked, whatever it did: there is nothing to lose.
        others_stand = any(run.call.call.breaker.lets_through for run in self._runs.values())
        if others_stand and (refusal := asked.admit()):
            again = " again" if asked.attempts else ""
            raise asked.refused("unavailable", f"not asked{again}: {refusal}")
        promised = highest_price(asked.call) if self._config.max_cost is not None else 0.0
        if refusal := self._budget.promise(promised):
            raise asked.refused("budget", refusal)
        return await asked.make(self._budget, promised)

    def _failure(self, run: _Run, task: asyncio.Task[None], ended: _Why) -> Failure:
        """What became of a call without an answer."""
        error = task.exception() if task.done() and not task.cancelled() else None
        model, call = run.call.call.provider.model, run.call
        kind: FailureKind
        if isinstance(error, ProviderError):
            model, kind, message = error.model, error.kind, error.message
        elif error is not None:
            raise error  # neither an answer nor an Exception: SystemExit and its like are not ours to keep
        else:
            kind, message = self._why_cancelled(ended)
            message = call.after_last_error(message)
        bill = call.bill()
        return Failure(
            model=model,
            kind=kind,
            message=message,
            latency_s=call.latency_s,
            attempts=call.attempts,
            usage=bill.usage,
            cost=bill.cost,
        )

    def _why_cancelled(self, ended: _Why) -> tuple[FailureKind, str]:
        if ended == "grace":
            return "cancelled", f"not waited for: others had answered, and had {self._config.grace_s:g} s more"
        if ended == "stop_when":
            return "cancelled", "not waited for: an answer was good enough"
        if ended == "budget":
            return "budget", f"cancelled: max_cost=${self._config.max_cost:g} is spent"
        if ended == "out of reach":
            return "cancelled", f"not waited for: {self._config.min_usable} usable answers were out of reach"
        return "timeout", f"no answer within the deadline of {self._config.deadline_s:g} s"


async def _screen_completeness(answers: Sequence[tuple[Candidate, Request]], seconds: float) -> list[Candidate]:
    return [answer.model_copy(update={"rejected": Complete().reason(answer, request)}) for answer, request in answers]


def no_candidates(gathered: FanOutResult, usable: int, needed: int) -> NoCandidates:
    """The error that names every failure and every answer that can't win."""
    reasons = [
        ProviderError(failure.message, kind=failure.kind, model=failure.model, usage=failure.usage, cost=failure.cost)
        for failure in gathered.failures
    ]
    reasons += [
        ProviderError(
            f"{candidate.rejected} (finish reason {candidate.finish_reason!r})",
            kind="content_policy" if candidate.rejected.startswith("refused") else "invalid_response",
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

"""One upstream call: what it asks, what it cost, when it is made again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

from cappy_select.ask.breaker import Budget, CircuitBreaker
from cappy_select.ask.prices import estimated_usage, most_usage
from cappy_select.ask.providers import Capabilities, Provider
from cappy_select.ask.providers.failures import without_places
from cappy_select.ask.sampling import Sampling, singles
from cappy_select.core.errors import ProviderError
from cappy_select.core.figures import ANY, dollars_of, tokens_of
from cappy_select.core.json_text import is_too_deep
from cappy_select.core.masking import masked
from cappy_select.core.types import Candidate, FailureKind, Request, Usage, total_cost

_PERHAPS_BILLED = frozenset({"timeout", "connection", "invalid_response"})  # the request was read, the answer lost


@dataclass(frozen=True)
class Call:
    """One upstream call to make, for `request.n` answers sampled in this way."""

    provider: Provider
    request: Request
    breaker: CircuitBreaker = field(default_factory=lambda: CircuitBreaker(100, 5, 30.0))
    sampling: Sampling = field(default_factory=Sampling)


def calls_for_missing(call: Call, have: int) -> Iterator[Call]:
    """Calls for one answer each, for what a call brought too few of: its server ignores `n`."""
    if have == 1:
        call.breaker.gives_n = False
    for number, sampling in enumerate(singles(call.sampling, have), have):
        seed = {} if sampling.seed is None else {"seed": sampling.seed}
        request = call.request.model_copy(
            update={"n": 1, "sample": call.request.sample + number, "params": call.request.params | seed}
        )
        yield Call(call.provider, request, call.breaker, sampling)


@dataclass(frozen=True)
class Bill:
    """Tokens, and dollars or None when a price is unknown."""

    usage: Usage
    cost: float | None


class Brought(NamedTuple):
    """What one call brought: its answers, and the bills of others that were paid for and can't be taken."""

    answers: list[Candidate]
    lost: list[Bill]

    @property
    def bill(self) -> Bill:
        """Of all of it."""
        return total([*(Bill(answer.usage, answer.cost) for answer in self.answers), *self.lost])


async def complete_once(call: Call, budget: Budget, promised: float) -> Brought:
    """Make the call, once, and settle what it cost on the budget, where `promised` dollars are kept for it.

    However it ends, what is not known counts as promised: the answer may have been written, and lost on its way.
    Raises ProviderError, for a provider's own defect too.
    """
    counts = promised
    try:
        brought = checked(await call.provider.complete(call.request), call)
        counts = settled_at(promised, brought.bill)
        return brought
    except ProviderError as error:
        counts = settled_at(promised, bill_of(call, error))
        raise
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # by us, or by the caller
        # A provider's own defect must not cost the answers of the others: it is one more failure, named.
        raise error_of(call, "invalid_response", f"{type(error).__name__}: {error}") from error
    finally:
        budget.settle(promised, counts)


def checked(answers: Any, call: Call) -> Brought:
    """What a provider returned, as far as it is what it must be. Raises ProviderError (`invalid_response`).

    A figure that can't be one is unknown, what is no answer is left out, and more answers than were asked for were
    paid for, but are not taken.
    """
    if not isinstance(answers, list) or not any(isinstance(answer, Candidate) for answer in answers):
        if answers == []:
            raise error_of(call, "invalid_response", "the provider returned no answer")
        raise error_of(call, "invalid_response", f"the provider must return a list of Candidate, not {answers!r:.80}")
    sound = [_with_sound_figures(answer, call) for answer in answers if isinstance(answer, Candidate)]
    able = [answer for answer in sound if not is_too_deep(answer.message, _DEEPEST)]
    lost = [answer for answer in sound if all(answer is not other for other in able)] + able[call.request.n :]
    brought = Brought(able[: call.request.n], [Bill(answer.usage, answer.cost) for answer in lost])
    if not able:
        bill = brought.bill
        raise ProviderError(
            f"the answer is nested deeper than {_DEEPEST} levels",
            kind="invalid_response",
            model=str(call.provider.model),
            usage=bill.usage,
            cost=bill.cost,
        )
    return brought


_DEEPEST = 100  # levels of a message; pydantic writes 255 of them, json a thousand


def _with_sound_figures(answer: Candidate, call: Call) -> Candidate:
    """The answer; usage that can't be such is estimated, and a cost that can't be one is what the usage costs."""
    usage, cost = answer.usage, dollars_of(answer.cost)
    if not _is_sound(usage):
        usage, cost = estimated_usage(call.request.messages, [answer.message], call.request.params.get("tools")), None
    if cost is None and (usage is not answer.usage or answer.cost is not None):
        cost = price_of(call.provider, usage)
    odd = {
        name: None
        for name in ("logprob_sum", "logprob_mean")
        if isinstance(value := getattr(answer, name), float) and not math.isfinite(value)
    }
    if usage is answer.usage and cost == answer.cost and not odd:
        return answer
    return answer.model_copy(update={"usage": usage, "cost": cost} | odd)


def _is_sound(usage: Any) -> TypeGuard[Usage]:
    if not isinstance(usage, Usage):
        return False
    return tokens_of(usage.prompt_tokens) is not None and tokens_of(usage.completion_tokens) is not None


def error_of(call: Call, kind: FailureKind, message: str) -> ProviderError:
    """A failure of this call."""
    return ProviderError(masked(without_places(message)), kind=kind, model=str(call.provider.model))


def bill_of(call: Call, error: ProviderError) -> Bill:
    """What a failed attempt cost: what it says; an estimate if it was perhaps worked on; else nothing."""
    if _is_sound(error.usage):
        return Bill(error.usage, dollars_of(error.cost))
    perhaps_billed = error.usage is not None or error.kind in _PERHAPS_BILLED
    return estimated_bill(call) if perhaps_billed else Bill(Usage(), 0.0)


def settled_at(promised: float, bill: Bill) -> float:
    """Dollars that count towards a limit: the bill's, if it is known; else no less than was promised."""
    if bill.cost is None:
        return promised
    return max(promised, bill.cost) if bill.usage.estimated else bill.cost


def total(bills: Iterable[Bill]) -> Bill:
    """All of them in one."""
    each = list(bills)
    return Bill(sum((bill.usage for bill in each), Usage()), total_cost(bill.cost for bill in each))


def estimated_bill(call: Call) -> Bill:
    """A lower bound for an attempt that reported nothing: its prompt was read, what it wrote is unknown."""
    usage = estimated_usage(call.request.messages, tools=call.request.params.get("tools"))
    return Bill(usage, price_of(call.provider, usage))


def price_of(provider: Provider, usage: Usage) -> float | None:
    """Dollars for `usage`; None when the provider does not know."""
    try:
        price = Capabilities.of(provider).price
        return None if price is None else dollars_of(price(usage))
    except Exception:  # a provider's defect, and a price that is not known
        return None


def highest_price(call: Call) -> float:
    """Dollars of a call at most, if a limit of tokens bounds its answers; else its prompt's. Infinite: nobody knows."""
    able, request = Capabilities.of(call.provider), call.request
    most: float | None = None
    try:
        if able.highest_price is not None:
            most = able.highest_price(request)
        elif able.price is not None:
            most = able.price(most_usage(request, request.params))
    except Exception:  # a provider's defect, a limit of tokens that is none
        most = None
    most = dollars_of(most, most=ANY)
    return math.inf if most is None else most

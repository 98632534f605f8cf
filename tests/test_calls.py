"""What a call cost, or may have cost, whatever its provider says."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from loopback import Reply, completion

from cappy_select import Candidate, NoCandidates, ProviderError, Request, Selector, Usage
from cappy_select.ask.breaker import Budget, CircuitBreaker
from cappy_select.ask.calls import Call, complete_once
from cappy_select.ask.fan_out import fan_out
from cappy_select.ask.limits import FanOutConfig

ASK = Request(messages=({"role": "user", "content": "q"},), params={"max_tokens": 100})
MOST = 0.1  # dollars of a call, by `Odd.price`


def answer(text="yes", **more) -> Candidate:
    return Candidate.model_construct(
        **{"model": "odd", "message": {"role": "assistant", "content": text}, "usage": Usage()} | more
    )


def whole(text="yes", **more) -> Candidate:
    return Candidate(model="odd", message={"role": "assistant", "content": text}, **more)


@contextmanager
def nothing(why: str) -> Iterator[pytest.ExceptionInfo[NoCandidates]]:
    with pytest.raises(NoCandidates) as caught:
        yield caught
    assert why in str(caught.value)


class Odd:
    """Gives what it was told to, one call after another; a thousandth of a dollar a token that is written."""

    model = "odd"

    def __init__(self, *steps):
        self.steps, self.calls = list(steps), 0

    def price(self, usage):
        return usage.completion_tokens / 1000

    async def complete(self, request):
        step = self.steps[min(self.calls, len(self.steps) - 1)]
        self.calls += 1
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            return await step()
        return step


def calls(*providers, n=1) -> list[Call]:
    return [Call(provider, ASK.model_copy(update={"n": n}), CircuitBreaker(9, 99, 1.0)) for provider in providers]


FIGURES = [
    {"cost": math.nan},
    {"cost": -5.0},
    {"cost": math.inf},
    {"cost": True},
    {"cost": "0.01"},
    {"cost": 1e9},
    {"usage": Usage(completion_tokens=10**30), "cost": 1e27},
    {"usage": Usage.model_construct(prompt_tokens=-5, completion_tokens=-7, estimated=False), "cost": -1.0},
    {"usage": Usage.model_construct(prompt_tokens=math.nan, completion_tokens="3", estimated=False), "cost": 0.0},
    {"usage": None, "cost": None},
    {"usage": {"prompt_tokens": 3}, "cost": 0.0},
]


@pytest.mark.parametrize("figures", FIGURES, ids=str)
async def test_a_figure_that_can_not_be_loses_no_answer_and_ends_no_limit(figures):
    odd = [Odd([answer(**figures)]) for _ in range(30)]
    gathered = await fan_out(calls(*odd), FanOutConfig(max_cost=10.5 * MOST))
    assert gathered.cost is not None
    assert 0 <= gathered.cost < math.inf
    assert 0 <= gathered.usage.total_tokens < 10**9
    made = sum(provider.calls for provider in odd)
    assert len(gathered.candidates) == made
    assert made >= 10


async def spent_by(answers: list[Candidate]) -> float:
    """What a call takes of a limit that `MOST` dollars were promised on."""
    budget = Budget(1.0)
    budget.promise(MOST)
    await complete_once(calls(Odd(answers))[0], budget, MOST)
    return budget.spent


async def test_what_is_known_counts_as_it_is_and_what_is_not_no_less_than_was_promised():
    assert await spent_by([whole(usage=Usage(completion_tokens=1), cost=0.001)]) == 0.001
    assert await spent_by([whole(usage=Usage(completion_tokens=1, estimated=True), cost=0.001)]) == MOST
    assert await spent_by([whole(usage=Usage(completion_tokens=1, estimated=True), cost=0.5)]) == 0.5
    assert await spent_by([whole(cost=None)]) == MOST
    assert await spent_by([answer(usage=Usage(completion_tokens=10**30), cost=0.0)]) == MOST


async def test_a_call_that_is_cut_off_counts_as_promised():
    budget, hung = Budget(1.0), asyncio.Event()
    budget.promise(MOST)
    task = asyncio.create_task(complete_once(calls(Odd(hung.wait))[0], budget, MOST))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (budget.spent, budget.under_way) == (MOST, 0)


async def test_lost_attempts_count_as_promised_and_retries_are_promised_anew():
    lost = Odd(ProviderError("closed", kind="connection", model="odd"))
    with nothing("would pass max_cost"):
        await fan_out(calls(lost), FanOutConfig(max_cost=2.5 * MOST, max_retries=9))
    assert lost.calls == 2


async def test_a_failure_with_figures_that_can_not_be_counts_as_promised():
    odd = ProviderError("broken", kind="timeout", model="odd", usage=Usage(completion_tokens=10**20), cost=math.nan)
    lost = Odd(odd)
    with pytest.raises(NoCandidates) as caught:
        await fan_out(calls(lost), FanOutConfig(max_cost=2.5 * MOST, max_retries=9))
    assert lost.calls == 2
    assert math.isfinite(caught.value.cost)
    assert caught.value.usage.estimated


@pytest.mark.parametrize("price", [math.nan, -1.0, "free", None, math.inf])
async def test_without_a_price_for_a_call_it_is_not_made_under_a_limit(price):
    class Unpriced(Odd):
        def price(self, usage):
            return price

    class Failing(Odd):
        def price(self, usage):
            raise RuntimeError("no price")

    for provider in (Unpriced([whole()]), Failing([whole()])):
        with nothing("nobody knows what it may cost"):
            await fan_out(calls(provider), FanOutConfig(max_cost=1.0))
        assert provider.calls == 0
        assert (await fan_out(calls(provider), FanOutConfig())).candidates[0].text == "yes"


@pytest.mark.parametrize(
    "odd", ["no", None, 5, {"text": "no"}, object(), Candidate], ids=lambda odd: type(odd).__name__
)
async def test_what_is_no_answer_is_lost_alone(odd):
    mixed = Odd([odd, whole("yes", cost=0.01)])
    gathered = await fan_out(calls(mixed), FanOutConfig())
    assert [candidate.text for candidate in gathered.candidates] == ["yes"]
    with nothing("list of Candidate"):
        await fan_out(calls(Odd([odd])), FanOutConfig())


async def test_an_answer_nested_without_end_is_lost_and_paid_for():
    deep: object = "x"
    for _ in range(5000):
        deep = [deep]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": deep}}
    sunk = whole(None, cost=0.25).model_copy(update={"message": {"role": "assistant", "tool_calls": [call]}})
    gathered = await fan_out(calls(Odd([sunk, whole("yes", cost=0.25)]), n=1), FanOutConfig())
    assert [candidate.text for candidate in gathered.candidates] == ["yes"]
    assert gathered.cost == 0.5
    with nothing("nested deeper") as caught:
        await fan_out(calls(Odd([sunk])), FanOutConfig())
    assert caught.value.cost == 0.25


async def test_more_answers_than_were_asked_for_are_paid_for():
    many = Odd([whole(str(number), cost=0.01) for number in range(5)])
    gathered = await fan_out(calls(many), FanOutConfig(max_cost=1.0))
    assert len(gathered.candidates) == 1
    assert gathered.cost == pytest.approx(0.05)


async def test_log_probabilities_that_are_no_numbers_are_none():
    odd = whole(logprob_sum=math.nan, logprob_mean=-math.inf, logprobs={"content": []})
    (found,) = (await fan_out(calls(Odd([odd])), FanOutConfig())).candidates
    assert (found.logprob_sum, found.logprob_mean) == (None, None)


NEGATIVE, ENDLESS = {"prompt_tokens": -10, "completion_tokens": -10}, {"prompt_tokens": 10**25, "completion_tokens": 1}
TEXTS, TRUTHS = {"prompt_tokens": "10", "completion_tokens": "4"}, {"prompt_tokens": True, "completion_tokens": True}
PARTS = {"prompt_tokens": 1.5, "completion_tokens": 2.5}


@pytest.mark.parametrize(
    ("kind", "usage"),
    # LiteLLM makes numbers of texts and truths before anybody else sees them.
    [("direct", odd) for odd in (NEGATIVE, ENDLESS, TEXTS, TRUTHS, PARTS)]
    + [("provider", odd) for odd in (NEGATIVE, ENDLESS, PARTS)],
    ids=str,
)
def test_a_server_that_reports_nonsense_loses_no_answer(loopback, tiny, request, kind, usage):
    make = request.getfixturevalue(kind)
    body = completion("a", Reply()) | {"usage": usage}
    loopback.replies["a"] = [Reply(body=json.dumps(body).encode())]
    selection = Selector([make("a")], samples=1, scorer=tiny, max_cost=0.01, max_tokens=50).select("What is it?")
    assert selection.text == "ok"
    assert selection.usage.estimated
    assert 0 < selection.cost < 0.01

from __future__ import annotations

import asyncio
import threading

import pytest

from cappy_select import Candidate, NoCandidates, ProviderError, Request
from cappy_select.ask.breaker import Budget, CircuitBreaker
from cappy_select.ask.calls import Call
from cappy_select.ask.fan_out import fan_out
from cappy_select.ask.limits import FanOutConfig

DOWN = ProviderError("a 500", kind="server", model="m")
ASK = Request(messages=({"role": "user", "content": "q"},))


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_provider_that_keeps_failing_is_left_alone_then_tried_once():
    clock = Clock()
    breaker = CircuitBreaker(9, 3, 30.0, clock)
    for _ in range(2):
        breaker.ended(DOWN)
    assert breaker.admit() == (None, False)
    breaker.ended(DOWN)
    assert not breaker.lets_through
    assert (
        breaker.admit().refusal
        == "it failed 3 times in a row (last: server: a 500) and is left alone for another 30.0 s"
    )
    clock.now += 31
    assert breaker.lets_through
    assert breaker.admit() == (None, True)
    assert "left alone" in breaker.admit().refusal  # while the trial is under way
    breaker.ended(None)
    assert breaker.admit() == (None, False)


def test_a_failed_trial_closes_it_again_and_a_success_in_between_forgives():
    clock = Clock()
    breaker = CircuitBreaker(9, 2, 30.0, clock)
    breaker.ended(DOWN)
    breaker.ended(None)
    breaker.ended(DOWN)
    assert breaker.admit().refusal is None
    breaker.ended(DOWN)
    clock.now += 31
    assert breaker.admit().trial
    breaker.ended(DOWN)
    assert "3 times in a row" in breaker.admit().refusal


@pytest.mark.parametrize("kind", ["bad_request", "content_policy", "context_window"])
def test_what_is_wrong_with_a_prompt_shows_that_the_provider_is_there(kind):
    clock = Clock()
    breaker = CircuitBreaker(9, 1, 30.0, clock)
    breaker.ended(DOWN)
    clock.now += 31
    assert breaker.admit().trial
    breaker.ended(ProviderError("no", kind=kind, model="m"))
    assert breaker.lets_through
    assert breaker.admit() == (None, False)


def test_an_abandoned_trial_leaves_the_next_call_to_try():
    clock = Clock()
    breaker = CircuitBreaker(9, 1, 30.0, clock)
    breaker.ended(DOWN)
    clock.now += 31
    assert breaker.admit().trial
    breaker.abandoned()
    assert breaker.admit().trial


class Counting:
    model = "counting"
    now = most = calls = 0

    async def complete(self, request):
        self.now, self.calls = self.now + 1, self.calls + 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.02)
        finally:
            self.now -= 1
        return [Candidate(model="counting", message={"content": "yes"}, cost=0.25)]


def test_a_breaker_bounds_the_calls_of_all_threads_and_loops_and_loses_no_place():
    provider, breaker = Counting(), CircuitBreaker(3, 5, 1.0)
    config = FanOutConfig(deadline_s=20)

    def work():
        gathered = asyncio.run(fan_out([Call(provider, ASK, breaker)] * 10, config))
        assert len(gathered.candidates) == 10

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.calls == 40
    assert provider.most <= 3
    assert breaker._limiter._free == 3


async def test_a_caller_who_gives_up_gives_back_its_place():
    provider, breaker = Counting(), CircuitBreaker(1, 5, 1.0)
    tasks = [asyncio.create_task(fan_out([Call(provider, ASK, breaker)] * 5, FanOutConfig())) for _ in range(10)]
    await asyncio.sleep(0.01)
    for task in tasks[:9]:
        task.cancel()
    await asyncio.wait(tasks)
    assert len(tasks[9].result().candidates) == 5
    assert breaker._limiter._free == 1
    assert not breaker._limiter._queue


def test_a_budget_keeps_money_for_calls_under_way():
    budget = Budget(1.0)
    assert budget.promise(0.6) is None
    assert (
        budget.promise(0.6)
        == "not made: $0.000000 are spent and $0.600000 promised, another $0.600000 would pass max_cost=$1"
    )
    budget.settle(0.6, 0.1)
    assert budget.promise(0.6) is None
    budget.settle(0.6, None)
    assert budget.spent == pytest.approx(0.7)
    assert not budget.is_spent
    assert Budget(None).promise(10**9) is None


class Down:
    model = "down"
    calls = 0

    async def complete(self, request):
        self.calls += 1
        raise DOWN


async def test_a_provider_in_its_pause_is_not_asked_while_another_is_there():
    down, fine = Down(), Counting()
    config = FanOutConfig(cool_down_after=2, max_retries=0)
    bad, good = config.breaker("a model"), config.breaker("a model")
    calls = [Call(down, ASK, bad), Call(fine, ASK, good)]
    kinds = [(await fan_out(calls, config)).failures[0].kind for _ in range(4)]
    assert kinds == ["server", "server", "unavailable", "unavailable"]
    assert down.calls == 2
    failure = (await fan_out(calls, config)).failures[0]
    assert (failure.attempts, failure.cost, failure.usage.prompt_tokens) == (0, 0.0, 0)
    assert "last: server: a 500" in failure.message


async def test_the_last_one_standing_is_asked_whatever_it_did():
    down = Down()
    config = FanOutConfig(cool_down_after=1, max_retries=0)
    breaker = config.breaker("a model")
    for _ in range(3):
        with pytest.raises(NoCandidates) as caught:
            await fan_out([Call(down, ASK, breaker)], config)
        assert "a 500" in str(caught.value)
    assert down.calls == 3


class Hanging:
    model = "hanging"
    calls = 0

    async def complete(self, request):
        self.calls += 1
        await asyncio.sleep(60)


async def test_a_provider_that_hangs_is_left_alone_too():
    hanging, fine = Hanging(), Counting()
    config = FanOutConfig(cool_down_after=2, deadline_s=0.3)
    bad, good = config.breaker("a model"), config.breaker("a model")
    calls = [Call(hanging, ASK, bad), Call(fine, ASK, good)]
    kinds = [(await fan_out(calls, config)).failures[0].kind for _ in range(4)]
    assert kinds == ["timeout", "timeout", "unavailable", "unavailable"]
    patient = FanOutConfig(cool_down_after=1, grace_s=0.2)
    breaker = patient.breaker("a model")
    for _ in range(2):  # cut off because it was not needed: that says nothing
        await fan_out([Call(hanging, ASK, breaker), Call(fine, ASK, good)], patient)
        assert breaker.lets_through


async def test_calls_that_wait_their_turn_are_not_made_once_it_is_left_alone():
    down, fine = Down(), Counting()
    config = FanOutConfig(cool_down_after=3, max_retries=0, max_concurrency=1)
    bad = config.breaker("a model")
    gathered = await fan_out([*[Call(down, ASK, bad)] * 20, Call(fine, ASK, config.breaker("a model"))], config)
    assert down.calls == 3
    assert [f.kind for f in gathered.failures] == ["server"] * 3 + ["unavailable"] * 17


async def test_a_cancelled_trial_gives_the_next_call_its_chance():
    clock = Clock()
    hanging, fine = Hanging(), Counting()
    bad, good = CircuitBreaker(9, 1, 30.0, clock), CircuitBreaker(9, 1, 30.0, clock)
    bad.ended(DOWN)
    clock.now += 31
    calls = [Call(hanging, ASK, bad), Call(fine, ASK, good)]
    for expected in (1, 2):
        await fan_out(calls, FanOutConfig(grace_s=0.05))
        assert hanging.calls == expected


async def test_a_trial_that_fails_after_its_retries_starts_the_pause_again():
    clock = Clock()
    down, fine = Down(), Counting()
    bad, good = CircuitBreaker(9, 1, 30.0, clock), CircuitBreaker(9, 1, 30.0, clock)
    bad.ended(DOWN)
    calls = [Call(down, ASK, bad), Call(fine, ASK, good)]
    for _ in range(2):
        clock.now += 31
        failure = (await fan_out(calls, FanOutConfig(max_retries=1))).failures[0]
        assert (failure.kind, failure.attempts) == ("server", 2)
        assert (await fan_out(calls, FanOutConfig())).failures[0].kind == "unavailable"
    assert down.calls == 4

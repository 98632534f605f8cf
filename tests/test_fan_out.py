from __future__ import annotations

import asyncio
import time

import pytest

from cappy_select import Candidate, NoCandidates, ProviderError, Request, Usage
from cappy_select.ask.calls import Call
from cappy_select.ask.fan_out import fan_out
from cappy_select.ask.limits import FanOutConfig
from cappy_select.ask.sampling import Sampling

pytestmark = pytest.mark.usefixtures("no_leaks")


class Scripted:
    """A provider that does one thing a call, in turn; the last one stays."""

    def __init__(self, model, *script):
        self.model, self.script, self.calls, self.cancelled = model, list(script), 0, 0

    async def complete(self, request):
        self.calls += 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, float):
            try:
                await asyncio.sleep(step)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            step = "late"
        if isinstance(step, Exception):
            raise step
        usage = Usage(prompt_tokens=5, completion_tokens=2)
        return [Candidate(model=self.model, message={"role": "assistant", "content": step}, usage=usage, cost=0.5)]


def error(kind, **options):
    return ProviderError(f"a {kind}", kind=kind, model="m", **options)


def calls(*providers):
    request = Request(messages=({"role": "user", "content": "Name a river."},))
    return [Call(provider, request) for provider in providers]


async def test_answers_come_in_request_order_whatever_their_speed():
    slow, quick = Scripted("slow", 0.2), Scripted("quick", "now")
    gathered = await fan_out(calls(slow, quick), FanOutConfig())
    assert [(c.index, c.model) for c in gathered.candidates] == [(0, "slow"), (1, "quick")]
    assert gathered.candidates[0].latency_s >= 0.2 > gathered.candidates[1].latency_s


async def test_all_calls_are_made_at_once():
    started = time.perf_counter()
    await fan_out(calls(*(Scripted(str(i), 0.2) for i in range(50))), FanOutConfig())
    assert time.perf_counter() - started < 5  # in turn it would be 10


async def test_a_failed_call_is_data_and_usage_and_cost_are_summed_over_all():
    bad = Scripted("bad", error("auth", usage=Usage(prompt_tokens=3), cost=0.25))
    gathered = await fan_out(calls(bad, Scripted("good", "yes"), Scripted("fine", "yes")), FanOutConfig())
    (failure,) = gathered.failures
    assert (failure.kind, failure.message, failure.attempts) == ("auth", "a auth", 1)
    assert gathered.usage == Usage(prompt_tokens=13, completion_tokens=4)
    assert gathered.cost == 1.25


async def test_a_call_refused_for_nothing_costs_nothing_but_an_unknown_price_makes_the_sum_unknown():
    free = await fan_out(calls(Scripted("bad", error("auth")), Scripted("good", "yes")), FanOutConfig())
    assert free.cost == 0.5
    late = await fan_out(calls(Scripted("late", 9.0), Scripted("good", "yes")), FanOutConfig(deadline_s=0.1))
    assert late.cost is None
    assert late.usage.estimated
    assert late.failures[0].usage.prompt_tokens > 0


async def test_what_is_retryable_is_tried_again_and_what_is_not_is_not():
    flaky = Scripted("flaky", error("server"), error("rate_limit"), "at last")
    wrong = Scripted("wrong", error("bad_request"))
    gathered = await fan_out(calls(flaky, wrong), FanOutConfig(max_retries=2))
    assert gathered.candidates[0].text == "at last"
    assert (flaky.calls, wrong.calls) == (3, 1)


async def test_retries_end():
    down = Scripted("down", error("server"))
    gathered = await fan_out(calls(down, Scripted("good", "yes")), FanOutConfig(max_retries=1))
    assert down.calls == gathered.failures[0].attempts == 2


async def test_retry_after_is_obeyed():
    soon = Scripted("soon", error("rate_limit", retry_after_s=0.3), "yes")
    gathered = await fan_out(calls(soon), FanOutConfig(deadline_s=5.0))
    assert gathered.candidates[0].latency_s >= 0.3


async def test_a_retry_after_beyond_the_deadline_is_not_waited_for():
    never = Scripted("never", error("rate_limit", retry_after_s=60.0), "no")
    started = time.perf_counter()
    gathered = await fan_out(calls(never, Scripted("good", "yes")), FanOutConfig(deadline_s=10.0))
    assert time.perf_counter() - started < 5
    (failure,) = gathered.failures
    assert (failure.kind, failure.message) == ("rate_limit", "a rate_limit")
    assert never.calls == 1


async def test_an_attempt_that_was_retried_stays_on_the_bill():
    lost = error("timeout", usage=Usage(prompt_tokens=7), cost=0.25)
    gathered = await fan_out(calls(Scripted("flaky", lost, "yes")), FanOutConfig())
    assert gathered.failures == ()
    assert gathered.usage == Usage(prompt_tokens=12, completion_tokens=2)
    assert gathered.cost == 0.75


async def test_a_failure_says_when_it_happened_not_when_the_others_were_done():
    gathered = await fan_out(calls(Scripted("bad", error("auth")), Scripted("slow", 0.4)), FanOutConfig())
    assert gathered.failures[0].latency_s < 0.3


@pytest.mark.parametrize(("kind", "billed"), [("connection", True), ("invalid_response", True), ("auth", False)])
async def test_an_answer_lost_on_the_way_is_perhaps_billed(kind, billed):
    gathered = await fan_out(calls(Scripted("bad", error(kind)), Scripted("good", "yes")), FanOutConfig(max_retries=0))
    assert gathered.failures[0].usage.estimated is billed
    assert gathered.cost == (None if billed else 0.5)


async def test_a_call_cut_off_while_it_waits_to_try_again_is_not_billed_twice():
    waiting = Scripted("waiting", error("rate_limit", retry_after_s=0.8), "no")
    gathered = await fan_out(calls(waiting, Scripted("good", "yes")), FanOutConfig(deadline_s=1.0, max_retries=1))
    assert {c.model for c in gathered.candidates} == {"waiting", "good"}
    late = Scripted("late", error("server"), 60.0)
    gathered = await fan_out(calls(late, Scripted("good", "yes")), FanOutConfig(deadline_s=1.5))
    (failure,) = gathered.failures
    assert failure.kind == "timeout"
    assert "the attempt before failed: server: a server" in failure.message
    assert failure.attempts == 2


@pytest.mark.parametrize("answer", [None, [], "text", [None], [{"role": "assistant"}]])
async def test_a_provider_that_returns_no_candidates_is_a_failure_by_name(answer):
    class Odd:
        model = "odd"

        async def complete(self, request):
            return answer

    gathered = await fan_out(calls(Odd(), Scripted("good", "yes")), FanOutConfig())
    (failure,) = gathered.failures
    assert (failure.model, failure.kind) == ("odd", "invalid_response")


async def test_a_price_that_fails_is_an_unknown_price():
    class Unpriced(Scripted):
        def price(self, usage):
            raise ZeroDivisionError

    gathered = await fan_out(calls(Unpriced("late", 60.0), Scripted("good", "yes")), FanOutConfig(deadline_s=0.1))
    assert gathered.cost is None


@pytest.mark.parametrize("raised", [SystemExit(3), StopIteration(), asyncio.CancelledError(), ZeroDivisionError()])
async def test_whatever_a_provider_raises_is_its_own_failure(raised):
    started = time.perf_counter()
    gathered = await fan_out(calls(Raising(raised), Scripted("good", "yes")), FanOutConfig(deadline_s=20.0))
    (failure,) = gathered.failures
    assert (failure.model, failure.kind) == ("raising", "invalid_response")
    assert time.perf_counter() - started < 5


class Raising:
    model = "raising"

    def __init__(self, raised):
        self.raised = raised

    async def complete(self, request):
        raise self.raised


@pytest.mark.parametrize(
    "message",
    [
        {"content": 7},
        {"content": [None]},
        {"content": [{"type": "image_url"}]},
        {"tool_calls": [{"function": None}]},
        {"tool_calls": [None]},
        {"tool_calls": 3},
        {},
    ],
)
async def test_a_malformed_answer_does_not_sink_the_others(message):
    class Odd:
        model = "odd"

        async def complete(self, request):
            return [Candidate(model="odd", message=message)]

    gathered = await fan_out(calls(Odd(), Scripted("good", "yes")), FanOutConfig())
    assert gathered.candidates[0].rejected == "empty answer"
    assert gathered.candidates[1].rejected is None


async def test_a_cancelled_caller_logs_nothing_of_a_call_that_had_failed():
    task = asyncio.create_task(fan_out(calls(Scripted("bad", error("auth")), Scripted("slow", 60.0)), FanOutConfig()))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_deadline_cancels_stragglers():
    hanging = Scripted("hanging", 60.0)
    started = time.perf_counter()
    gathered = await fan_out(calls(hanging, Scripted("good", "yes")), FanOutConfig(deadline_s=0.2))
    assert time.perf_counter() - started < 0.7
    assert hanging.cancelled == 1
    assert gathered.failures[0].message == "no answer within the deadline of 0.2 s"


async def test_a_provider_that_will_not_be_cancelled_cannot_hold_the_answer():
    class Stubborn:
        model = "stubborn"

        async def complete(self, request):
            for _ in range(20):
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    continue
            return []

    started = time.perf_counter()
    gathered = await fan_out(calls(Stubborn(), Scripted("good", "yes")), FanOutConfig(deadline_s=0.1))
    assert time.perf_counter() - started < 0.6
    assert gathered.failures[0].model == "stubborn"
    await asyncio.sleep(1.2)


async def test_cancelling_the_caller_cancels_every_call():
    hanging = [Scripted(str(i), 60.0) for i in range(5)]
    task = asyncio.create_task(fan_out(calls(*hanging), FanOutConfig()))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [provider.cancelled for provider in hanging] == [1] * 5


async def test_a_defect_of_a_provider_is_one_more_failure():
    gathered = await fan_out(calls(Scripted("bug", ZeroDivisionError("oops")), Scripted("good", "yes")), FanOutConfig())
    (failure,) = gathered.failures
    assert (failure.model, failure.kind, failure.message) == ("bug", "invalid_response", "ZeroDivisionError: oops")


@pytest.mark.parametrize("empty", ["", " \n"])
async def test_an_empty_answer_is_kept_but_does_not_count(empty):
    gathered = await fan_out(calls(Scripted("empty", empty), Scripted("good", "yes")), FanOutConfig())
    assert [c.rejected for c in gathered.candidates] == ["empty answer", None]
    with pytest.raises(NoCandidates, match="1 usable answers, 2 needed"):
        await fan_out(calls(Scripted("empty", empty), Scripted("good", "yes")), FanOutConfig(min_usable=2))


async def test_no_candidates_names_every_failure_and_carries_the_bill():
    with pytest.raises(NoCandidates) as caught:
        await fan_out(
            calls(Scripted("a", error("auth")), Scripted("b", ""), Scripted("c", 60.0)), FanOutConfig(deadline_s=0.1)
        )
    group = caught.value
    assert [(e.model, e.kind) for e in group.exceptions] == [("m", "auth"), ("c", "timeout"), ("b", "invalid_response")]
    assert group.usage.prompt_tokens > 5
    assert group.usage.completion_tokens == 2
    assert group.cost is None
    assert group.exceptions[-1].cost == 0.5
    for part in ("auth", "no answer within", "empty answer"):
        assert part in str(group)
    timeouts, others = group.split(lambda e: isinstance(e, ProviderError) and e.kind == "timeout")
    assert isinstance(timeouts, NoCandidates)
    assert (len(timeouts.exceptions), len(others.exceptions)) == (1, 2)
    assert timeouts.usage == group.usage


class Several(Scripted):
    """Gives as many answers as are asked for, or fewer."""

    def __init__(self, model, most, **options):
        super().__init__(model, "x")
        self.most, self.asked, self.options = most, [], options

    async def complete(self, request):
        self.asked.append((request.n, request.sample, request.params.get("seed")))
        start = request.sample
        return [
            Candidate(model=self.model, message={"content": f"answer {start + k}"}, cost=0.25, **self.options)
            for k in range(min(request.n, self.most))
        ]


def asking(provider, n, **sampling):
    asked = Sampling(n=n, **sampling)
    request = Request(messages=({"role": "user", "content": "q"},), n=n, params=asked.params)
    return Call(provider, request, sampling=asked)


async def test_n_answers_come_in_one_call_where_the_provider_gives_them():
    able = Several("able", 9)
    gathered = await fan_out([asking(able, 4)], FanOutConfig())
    assert able.asked == [(4, 0, None)]
    assert [c.index for c in gathered.candidates] == [0, 1, 2, 3]


async def test_a_server_that_ignores_n_is_asked_again_for_the_rest():
    call = asking(Several("deaf", 1), 4, seed=7, temperature=0.5)
    gathered = await fan_out([call, asking(Several("able", 2), 2)], FanOutConfig())
    assert call.provider.asked == [(4, 0, 7), (1, 1, 8), (1, 2, 9), (1, 3, 10)]
    assert [c.text for c in gathered.candidates] == [*(f"answer {k}" for k in range(4)), "answer 0", "answer 1"]
    assert [c.sampling.get("seed") for c in gathered.candidates] == [7, 8, 9, 10, None, None]
    assert gathered.candidates[0].sampling == {"seed": 7, "temperature": 0.5}
    assert not call.breaker.gives_n
    assert gathered.cost == 6 * 0.25


async def test_answers_that_there_was_no_time_to_ask_for_again_are_named():
    async def slow_screen(answers, seconds):
        await asyncio.sleep(0.3)
        return [answer for answer, _ in answers]

    class Soon(Several):
        async def complete(self, request):
            await asyncio.sleep(0.1)
            return await super().complete(request)

    deaf = asking(Soon("deaf", 1), 4)
    gathered = await fan_out([*calls(Scripted("quick", "now")), deaf], FanOutConfig(deadline_s=0.2), screen=slow_screen)
    assert [c.model for c in gathered.candidates] == ["quick", "deaf"]
    (failure,) = gathered.failures
    assert (failure.model, failure.kind) == ("deaf", "timeout")
    assert failure.message.startswith("1 of 4 answers came; for the others: no answer within the deadline")


async def test_stragglers_have_a_grace_time_once_enough_answered():
    started = time.perf_counter()
    late, quick = Scripted("late", 30.0), Scripted("quick", "now")
    gathered = await fan_out(calls(late, quick, Scripted("soon", 0.15)), FanOutConfig(grace_s=0.6))
    assert 0.5 < time.perf_counter() - started < 3
    assert [c.model for c in gathered.candidates] == ["quick", "soon"]
    (failure,) = gathered.failures
    assert (failure.model, failure.kind, gathered.ended) == ("late", "cancelled", "grace")
    assert "0.6 s more" in failure.message
    assert failure.usage.estimated  # it was asked, and perhaps billed


async def test_an_unusable_answer_starts_no_grace_time():
    gathered = await fan_out(
        calls(Scripted("empty", ""), Scripted("good", 0.3)), FanOutConfig(grace_s=0.0, deadline_s=5.0)
    )
    assert [c.rejected for c in gathered.candidates] == ["empty answer", None]
    assert gathered.ended == "complete"


async def test_an_answer_that_is_good_enough_ends_it():
    hanging = Scripted("hanging", 60.0)
    gathered = await fan_out(
        calls(hanging, Scripted("poor", "no"), Scripted("good", 0.1)),
        FanOutConfig(),
        good_enough=lambda c: c.text == "late",
    )
    assert gathered.ended == "stop_when"
    assert [c.model for c in gathered.candidates] == ["poor", "good"]
    assert (hanging.cancelled, gathered.failures[0].kind) == (1, "cancelled")


async def test_good_enough_is_not_enough_for_a_quorum():
    gathered = await fan_out(
        calls(Scripted("good", "yes"), Scripted("second", 0.2), Scripted("hanging", 60.0)),
        FanOutConfig(min_usable=2),
        good_enough=lambda c: c.text == "yes",
    )
    assert gathered.ended == "stop_when"
    assert [c.model for c in gathered.candidates] == ["good", "second"]


async def test_the_grace_time_holds_while_a_straggler_is_screened():
    async def screen(answers, seconds):
        if any(answer.text == "late" for answer, _ in answers):
            assert seconds < 0.5
            await asyncio.sleep(seconds)
        return [answer for answer, _ in answers]

    started = time.perf_counter()
    await fan_out(calls(Scripted("quick", "now"), Scripted("soon", 0.1)), FanOutConfig(grace_s=0.4), screen=screen)
    assert time.perf_counter() - started < 5


async def test_what_arrives_after_the_deadline_while_answers_are_screened_still_counts():
    async def slow_screen(answers, seconds):
        await asyncio.sleep(0.4)
        return [answer for answer, _ in answers]

    gathered = await fan_out(
        calls(Scripted("quick", "now"), Scripted("soon", 0.1)), FanOutConfig(deadline_s=0.3), screen=slow_screen
    )
    assert [c.model for c in gathered.candidates] == ["quick", "soon"]


class Dear(Scripted):
    """A dollar a thousand tokens of either kind."""

    def price(self, usage):
        return usage.total_tokens / 1000


async def test_a_call_that_could_pass_the_money_limit_is_not_made():
    request = Request(messages=({"role": "user", "content": "Name a river."},), params={"max_tokens": 400})
    dear = [Dear(str(i), 0.1) for i in range(4)]
    gathered = await fan_out([Call(p, request) for p in dear], FanOutConfig(max_cost=1.0))
    assert [p.calls for p in dear] == [1, 1, 0, 0]
    assert [f.kind for f in gathered.failures] == ["budget", "budget"]
    assert "would pass max_cost=$1" in gathered.failures[0].message


async def test_an_attempt_that_was_perhaps_billed_keeps_its_money():
    request = Request(messages=({"role": "user", "content": "Name a river."},), params={"max_tokens": 400})
    lost, next_one = Dear("lost", error("timeout")), Dear("next", 0.2)
    calls_ = [Call(lost, request), Call(next_one, request)]
    with pytest.raises(NoCandidates) as caught:  # the retry would pass the limit: the first may have cost 0.41
        await fan_out([calls_[0]], FanOutConfig(max_cost=0.8))
    assert lost.calls == 1
    assert "would pass max_cost" in str(caught.value)


async def test_spent_money_ends_it():
    gathered = await fan_out(calls(Dear("quick", 0.1), Dear("slow", 60.0)), FanOutConfig(max_cost=0.4))
    assert gathered.ended == "budget"
    assert gathered.failures[0].kind == "budget"
    assert "max_cost=$0.4 is spent" in gathered.failures[0].message


async def test_a_provider_that_takes_our_cancelling_for_a_timeout_is_not_asked_again():
    class Converting(Scripted):
        async def complete(self, request):
            self.calls += 1
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise error("timeout") from None

    converting = Converting("converting", "x")
    gathered = await fan_out(calls(converting, Scripted("quick", "now")), FanOutConfig(grace_s=0.1))
    assert converting.calls == 1
    assert gathered.failures[0].attempts == 1


async def test_a_quorum_out_of_reach_is_not_waited_for():
    started = time.perf_counter()
    with pytest.raises(NoCandidates, match="0 usable answers, 2 needed") as caught:
        await fan_out(calls(Scripted("bad", error("auth")), Scripted("slow", 60.0)), FanOutConfig(min_usable=2))
    assert time.perf_counter() - started < 5
    assert [e.kind for e in caught.value.exceptions] == ["auth", "cancelled"]
    assert "2 usable answers were out of reach" in str(caught.value)


async def test_more_answers_than_were_asked_for_are_paid_and_not_taken():
    class Generous(Several):
        async def complete(self, request):
            return await super().complete(request.model_copy(update={"n": 5}))

    gathered = await fan_out([asking(Generous("generous", 5), 2)], FanOutConfig())
    assert [c.text for c in gathered.candidates] == ["answer 0", "answer 1"]
    assert gathered.cost == 5 * 0.25


async def test_calls_refused_together_come_back_each_at_its_own_time():
    came = []

    class Busy(Scripted):
        async def complete(self, request):
            came.append(time.perf_counter())
            return await super().complete(request)

    busy = [Busy(str(i), error("rate_limit", retry_after_s=0.3), "yes") for i in range(8)]
    await fan_out(calls(*busy), FanOutConfig())
    back = came[8:]
    assert min(back) - max(came[:8]) >= 0.25
    assert max(back) - min(back) > 0.02

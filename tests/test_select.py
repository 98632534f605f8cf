from __future__ import annotations

import asyncio
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest
from loopback import Reply

from cappy_select import (
    Argmax,
    Candidate,
    InputError,
    JsonSchema,
    NoCandidates,
    NoGoodAnswer,
    Selection,
    Selector,
    SelfScore,
    StrategyError,
    Vote,
)
from cappy_select.scorer import Scorer

QUESTION = "The Marañón and the Ucayali meet near Nauta. Question: Which two rivers meet near Nauta?"
RIGHT, WRONG = "The Marañón and the Ucayali.", "Peru has many rivers."


def test_the_best_answer_is_returned_verbatim_with_everything_weighed(loopback, provider, default):
    loopback.replies["a"] = [Reply(text=WRONG), Reply(text=f"{RIGHT}\n")]
    loopback.replies["b"] = [Reply(text="")]
    selection = Selector([provider("a"), provider("b")], samples=2, scorer=default).select(QUESTION)
    assert selection.text == selection.best.text == f"{RIGHT}\n"
    assert [c.rejected for c in selection.candidates] == [None, None, "empty answer", "empty answer"]
    assert selection.candidates[0].score > selection.candidates[1].score
    assert selection.candidates[2].score is None
    assert selection.usage.prompt_tokens == 40
    assert selection.cost == pytest.approx(4 * (10e-6 + 8e-6))
    assert (selection.instruction.text, selection.instruction.policy) == (QUESTION, "paper")
    assert (selection.scorer, selection.strategy) == (str(default.bundle), "argmax")
    expected = default.score(QUESTION, [f"{RIGHT}\n"])[0]
    assert selection.best.score == pytest.approx(float(expected), abs=1e-5)
    assert Selection.model_validate_json(selection.model_dump_json()) == selection


def test_one_fails_one_hangs_one_answers(loopback, provider, default):
    loopback.replies["broken"] = [Reply(status=500)]
    loopback.replies["hanging"] = [Reply(delay_s=60)]
    loopback.replies["good"] = [Reply(text=RIGHT)]
    selector = Selector(
        [provider("broken"), provider("hanging"), provider("good")], samples=1, scorer=default, deadline_s=2.0
    )
    started = time.perf_counter()
    selection = selector.select(QUESTION)
    assert time.perf_counter() - started < 2.5
    assert selection.text == RIGHT
    assert [(f.model, f.kind) for f in selection.failures] == [
        ("openai/broken", "server"),
        ("openai/hanging", "timeout"),
    ]
    assert selection.usage.estimated
    assert selection.cost > 18e-6  # the hanging call's prompt is counted


def test_none_answers(loopback, provider, default):
    for name, reply in {"broken": Reply(status=500), "hanging": Reply(delay_s=60), "empty": Reply(text="")}.items():
        loopback.replies[name] = [reply]
    models = [provider("broken"), provider("hanging"), provider("empty")]
    selector = Selector(models, samples=1, scorer=default, deadline_s=1.0)
    started = time.perf_counter()
    with pytest.raises(NoCandidates) as caught:
        selector.select(QUESTION)
    assert time.perf_counter() - started < 1.5
    assert {e.model for e in caught.value.exceptions} == {"openai/broken", "openai/hanging", "openai/empty"}
    assert caught.value.usage.completion_tokens == 4


async def test_a_synchronous_select_works_inside_a_running_loop(loopback, provider, tiny):
    assert Selector([provider("m")], scorer=tiny).select("q").text == "ok"


async def test_sync_and_async_calls_from_many_threads_and_loops_share_one_selector(loopback, provider, tiny):
    selector = Selector([provider("m")], samples=2, scorer=tiny)
    results: list[str] = []

    def in_thread(number: int) -> None:
        if number % 2:
            results.append(selector.select("q").text)
        else:
            results.append(asyncio.run(selector.aselect("q")).text)

    threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    results.append((await selector.aselect("q")).text)
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    assert results == ["ok"] * 9


async def test_the_event_loop_stays_free_while_scoring(loopback, provider, default):
    loopback.replies["m"] = [Reply(text="word " * 400)]
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.perf_counter())
            await asyncio.sleep(0.005)

    ticker = asyncio.create_task(tick())
    spans = []

    class Slow(Scorer):
        def __init__(self) -> None:
            super().__init__(default.bundle)

        def _run(self, batch):
            spans.append(time.perf_counter())
            time.sleep(0.5)  # as a large model does
            spans.append(time.perf_counter())
            return super()._run(batch)

    await Selector([provider("m")], samples=2, scorer=Slow()).aselect("q")
    ticker.cancel()
    assert sum(spans[0] < tick < spans[1] for tick in ticks) >= 10


def test_a_chat_is_scored_on_its_last_question(loopback, provider, tiny):
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "the council voted " * 700},
        {"role": "assistant", "content": "Indeed."},
        {"role": "user", "content": "Name a river."},
    ]
    selection = Selector([provider("m")], samples=1, scorer=tiny).select(chat)
    assert loopback.requests[0]["messages"] == chat
    assert selection.instruction.policy == "chat"
    assert selection.instruction.text == "Be brief.\n\nAssistant: Indeed.\n\nName a river."
    assert selection.instruction.turns_left_out == 1


def test_what_was_cut_is_reported(loopback, provider, tiny):
    loopback.replies["m"] = [Reply(text="yes " * 600), Reply(text="no")]
    selection = Selector([provider("m")], samples=2, scorer=tiny).select("which answer " * 300)
    by_text = {candidate.text: candidate for candidate in selection.candidates}
    assert by_text["yes " * 600].tokens_cut > 0
    assert by_text["no"].tokens_cut == 0
    assert selection.instruction.tokens_cut > 0
    assert selection.instruction.cut_side == "right"


def test_tools_and_parameters_reach_every_call_and_a_tool_call_wins_verbatim(loopback, provider, tiny):
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"q": "river"}'}}
    loopback.replies["m"] = [Reply(message={"role": "assistant", "content": None, "tool_calls": [call]})]
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    selection = Selector([provider("m", temperature=0.2)], samples=2, scorer=tiny).select(
        "q", tools=tools, temperature=0.9
    )
    assert selection.text == ""
    assert selection.best.message["tool_calls"][0]["function"] == call["function"]
    assert selection.best.score == pytest.approx(float(tiny.score("q", ['find({"q": "river"})'])[0]), abs=1e-5)
    assert [(r["temperature"], len(r["tools"])) for r in loopback.requests] == [(0.9, 1)] * 2


def test_named_models_take_key_address_and_parameters(loopback, tiny):
    options = {"api_key": "sk-a", "api_base": loopback.base, "temperature": 0.5}
    selection = Selector(["openai/m"], samples=1, scorer=tiny, **options).select("q")
    assert selection.best.model == "openai/m"
    assert loopback.keys == ["sk-a"]
    assert loopback.requests[0]["temperature"] == 0.5


def test_batch_keeps_order_and_can_return_errors_in_place(loopback, provider, tiny):
    loopback.replies["m"] = [Reply(text="")]
    loopback.replies["n"] = [Reply()]
    empty, fine = Selector([provider("m")], samples=1, scorer=tiny), Selector([provider("n")], samples=1, scorer=tiny)
    prompts = [f"prompt {i}" for i in range(10)]
    assert [s.instruction.text for s in fine.batch(prompts, max_concurrency=3)] == prompts
    results = empty.batch(prompts[:3], return_exceptions=True)
    assert [type(result) for result in results] == [NoCandidates] * 3
    with pytest.raises(NoCandidates):
        empty.batch(prompts[:3])
    assert fine.batch([]) == []


class Counting:
    """Knows how many calls were under way at once."""

    model = "counting"
    now = most = 0

    async def complete(self, request):
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02)
        self.now -= 1
        return [Candidate(model="counting", message={"content": "yes"})]


async def test_abatch_bounds_what_is_under_way(tiny):
    counting = Counting()
    await Selector([counting], samples=2, scorer=tiny).abatch(["q"] * 12, max_concurrency=3)
    assert counting.most == 6


class Fixed:
    """Given scores, to any responses."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores

    def score_pairs(self, pairs):
        return self.scores[: len(pairs)]


def test_nan_never_wins_and_ties_go_to_the_earlier(loopback, provider, tiny):
    loopback.replies["m"] = [Reply(text=text) for text in "abcd"]
    scorer = Fixed(math.nan, 0.5, 0.7, 0.7)
    selection = Selector([provider("m")], samples=4, scorer=scorer, max_retries=0).select("q")
    assert selection.best.index == 2
    assert [c.index for c in selection.candidates] == [2, 3, 1, 0]
    assert selection.candidates[-1].rejected == "the score is nan"


def test_answers_without_a_score_do_not_count(loopback, provider, tiny):
    loopback.replies["bad"] = [Reply(status=401)]
    models = [provider("m"), provider("bad")]
    with pytest.raises(NoCandidates, match="0 usable answers, 1 needed") as caught:
        Selector(models, samples=2, scorer=Fixed(math.nan, math.nan)).select("q")
    assert "the score is nan" in str(caught.value)
    assert "openai/bad: auth" in str(caught.value)
    with pytest.raises(NoCandidates, match="1 usable answers, 2 needed"):
        Selector(models, samples=2, scorer=Fixed(0.5, math.nan), min_usable=2).select("q")


def test_a_gate_that_hangs_holds_up_neither_its_selection_nor_others(loopback, provider, tiny):
    release = threading.Event()
    stuck = Selector([provider("m")], samples=1, scorer=tiny, deadline_s=0.5, gates=[lambda c: release.wait(20)])
    started = time.perf_counter()

    def hang():
        with pytest.raises(NoCandidates):
            stuck.select("q")

    hung = [threading.Thread(target=hang) for _ in range(3)]
    for thread in hung:
        thread.start()
    assert Selector([provider("m")], samples=1, scorer=tiny).select("q").text == "ok"
    with pytest.raises(NoCandidates) as caught:
        stuck.select("q")
    assert "its gates had not ended in time" in str(caught.value)
    assert time.perf_counter() - started < 10
    release.set()
    for thread in hung:
        thread.join()


def test_argmax_refuses_what_has_no_score():
    with pytest.raises(InputError, match="finite"):
        Argmax().order([Candidate(model="m", message={})])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"min_usable": 5}, "can't be met"),
        ({"deadline_s": float("inf")}, "deadline_s"),
        ({"max_retries": -1}, "max_retries"),
        ({"instruction": "newest"}, "paper, chat, last_user"),
        ({"api_key": "k"}, "given by name"),
        ({"strategy": "argmax"}, "a strategy is an object"),
        ({"samples": 10**9}, "from 1 to 1000"),
        ({"samples": 2, "plan": "quick"}, "not both"),
        ({"plan": "huge"}, "single, quick, paper"),
        ({"plan": {"samplings": [{"n": 4}], "overrides": {"openai/x": [{}]}}}, "overrides for openai/x"),
        ({"plan": {"samplings": [{"temperature": 1}]}, "temperature": 0.5}, "set by the plan"),
        ({"max_candidates": 3}, "max_candidates=3"),
        ({"grace_s": -1}, "grace_s"),
        ({"max_cost": 0}, "max_cost"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"stop_when": float("nan")}, "stop_when"),
        ({"stop_when": "0.9"}, "stop_when"),
        ({"plan": {"samplings": [{}], "overrides": {"openai/m": []}}}, "overrides"),
        ({"gates": ["json"]}, "a gate is"),
        ({"strategy": Argmax}, "a strategy is an object"),
    ],
)
def test_a_bad_setting_fails_at_construction(provider, tiny, options, message):
    with pytest.raises(InputError, match=message):
        Selector([provider("m")], scorer=tiny, **options)


@pytest.mark.parametrize("name", ["model", "n", "stream", "messages", "timeout"])
def test_what_the_selector_decides_is_no_parameter(provider, tiny, name):
    with pytest.raises(InputError, match=name):
        Selector([provider("m")], scorer=tiny).select("q", **{name: 1})


def test_one_string_is_not_several(provider, tiny):
    with pytest.raises(InputError, match="put it in a list"):
        Selector([provider("m")], scorer=tiny).batch("q")
    with pytest.raises(InputError, match="non-empty list"):
        Selector("openai/m", scorer=tiny)


def test_an_interrupt_ends_a_synchronous_call(loopback):
    loopback.replies["m"] = [Reply(delay_s=60)]
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "from cappy_select import Selector\n"
        "selector = Selector(['openai/m'], api_base=sys.argv[1], api_key='k')\n"
        "try: selector.select('q')\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, loopback.base], stdout=subprocess.PIPE, text=True)
    for _ in range(600):
        if loopback.requests:  # one for all four answers
            break
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0].strip() == "interrupted"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gets_a_loop_of_its_own():
    script = (
        "import asyncio, os\n"
        "from cappy_select.core import background\n"
        "async def one(): return 1\n"
        "assert background.run(one()) == 1\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(7 if background.run(one()) == 1 else 8)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "7", done.stderr


def test_a_prompt_or_policy_that_fails_costs_nothing(loopback, provider, tiny):
    def broken(messages):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Selector([provider("m")], scorer=tiny, instruction=broken).select("q")
    with pytest.raises(InputError):
        Selector([provider("m")], scorer=tiny).select([{"role": "user", "content": 3}])
    assert loopback.requests == []


def test_parameters_of_the_constructor_reach_providers_too(loopback, provider, tiny):
    Selector([provider("m", temperature=0.1)], samples=1, scorer=tiny, temperature=0.9).select("q")
    assert loopback.requests[0]["temperature"] == 0.9


def test_a_malformed_tool_call_does_not_sink_the_others(loopback, provider, tiny):
    call = {"id": "1", "type": "function", "function": {"arguments": "{}"}}
    loopback.replies["odd"] = [Reply(message={"role": "assistant", "content": None, "tool_calls": [call]})]
    selection = Selector([provider("odd"), provider("m")], samples=1, scorer=tiny, max_retries=0).select("q")
    assert "ok" in [candidate.text for candidate in selection.candidates]


def test_a_key_goes_to_one_vendor_only(tiny):
    with pytest.raises(InputError, match="anthropic and openai"):
        Selector(["openai/a", "anthropic/b"], scorer=tiny, api_key="k")


def test_a_strategy_must_return_what_it_was_given(provider, tiny):
    class Lossy:
        name = "lossy"

        def order(self, candidates):
            return []

    with pytest.raises(StrategyError, match="'lossy' must return the candidates") as caught:
        Selector([provider("m")], scorer=tiny, strategy=Lossy()).select("q")
    assert caught.value.selection.text == "ok"


def test_a_strategy_may_be_a_subclass_or_return_an_iterator(loopback, provider, tiny):
    loopback.replies["m"] = [Reply(text="a"), Reply(text="b"), Reply(text="")]

    class Last(Argmax):
        name = "last"

        def order(self, candidates):
            return reversed(candidates)

    class Nothing(Argmax):
        def order(self, candidates):
            return None

    by_index = Fixed(0.5, 0.4)
    selection = Selector([provider("m")], samples=3, scorer=by_index, strategy=Last()).select("q")
    assert (selection.text, selection.strategy) == ("b", "last")
    assert [c.rejected for c in selection.candidates] == [None, None, "empty answer"]
    loopback.replies["m"] = [Reply()]
    with pytest.raises(StrategyError, match="failed: TypeError"):
        Selector([provider("m")], samples=1, scorer=tiny, strategy=Nothing(), min_usable=1).select("q")


def test_a_gate_that_hangs_on_one_answer_rejects_that_one(loopback, provider, tiny):
    loopback.gives_n = True
    loopback.replies["m"] = [Reply(text=text) for text in ("fine", "stuck", "after")]
    release = threading.Event()
    gates = [lambda c: release.wait(20) if c.text == "stuck" else True]
    selection = Selector([provider("m")], samples=3, scorer=tiny, deadline_s=1.0, gates=gates).select("q")
    release.set()
    assert {c.text: c.rejected is None for c in selection.candidates} == {"fine": True, "stuck": False, "after": True}


def test_what_was_paid_for_is_not_lost_when_a_strategy_fails(loopback, provider, tiny):
    def broken(candidate):
        raise ZeroDivisionError("oops")

    for strategy, message in [(Vote(broken), "ZeroDivisionError: oops"), (SelfScore(), "no candidate has log-prob")]:
        with pytest.raises(StrategyError, match=message) as caught:
            Selector([provider("m")], samples=2, scorer=tiny, strategy=strategy).select("q")
        assert len(caught.value.selection.candidates) == 2
        assert caught.value.selection.cost > 0
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (str(copy), copy.selection) == (str(caught.value), caught.value.selection)


def test_an_interrupt_inside_a_provider_reaches_the_caller_and_the_next_call_works(provider, loopback, tiny):
    class Interrupting:
        model = "interrupting"

        async def complete(self, request):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Selector([Interrupting()], samples=1, scorer=tiny).select("q")
    assert Selector([provider("m")], samples=1, scorer=tiny).select("q").text == "ok"


def test_a_policy_that_stops_an_iteration_is_an_error_and_no_hang(loopback, provider, tiny):
    selector = Selector([provider("m")], scorer=tiny, instruction=lambda messages: next(iter([])))
    with pytest.raises(RuntimeError, match="StopIteration in a policy, gate or strategy"):
        selector.select("q")


def test_a_gate_keeps_an_answer_from_winning_and_says_why(loopback, provider, default):
    loopback.replies["m"] = [Reply(text=f"{RIGHT} But who knows?"), Reply(text='{"rivers": 2}'), Reply(text="{}")]
    schema = {"type": "object", "required": ["rivers"]}
    selector = Selector([provider("m")], samples=3, gates=[JsonSchema(schema)], scorer=default)
    selection = selector.select(QUESTION)
    assert selection.text == '{"rivers": 2}'
    rejected = {c.text: c.rejected for c in selection.candidates[1:]}
    assert "is not JSON" in rejected[f"{RIGHT} But who knows?"]
    assert "'rivers' is a required property" in rejected["{}"]
    assert all(c.score is None for c in selection.candidates[1:])
    with pytest.raises(NoCandidates, match="0 usable answers, 1 needed") as caught:
        selector.select(QUESTION)
    assert "required property" in str(caught.value)


def test_cut_off_answers_win_only_where_that_is_meant(loopback, provider, tiny):
    loopback.replies["m"] = [Reply(text="half an ans", finish_reason="length")]
    with pytest.raises(NoCandidates) as caught:
        Selector([provider("m")], samples=1, scorer=tiny).select("q")
    assert "cut off: length" in str(caught.value)
    assert Selector([provider("m")], samples=1, scorer=tiny, accept_cut_off=True).select("q").text == "half an ans"


def test_a_good_enough_score_ends_the_waiting(loopback, provider, default):
    loopback.replies["quick"] = [Reply(text=RIGHT)]
    loopback.replies["poor"] = [Reply(text=WRONG)]
    loopback.replies["slow"] = [Reply(delay_s=60)]
    right = float(default.score(QUESTION, [RIGHT])[0])
    assert right > float(default.score(QUESTION, [WRONG])[0])
    models = [provider("slow"), provider("poor"), provider("quick")]
    started = time.perf_counter()
    selection = Selector(models, samples=1, scorer=default, stop_when=right - 0.01).select(QUESTION)
    assert time.perf_counter() - started < 20
    assert (selection.text, selection.ended) == (RIGHT, "stop_when")
    assert [(f.model, f.kind) for f in selection.failures if f.model == "openai/slow"] == [("openai/slow", "cancelled")]
    patient = Selector(models[1:], samples=1, scorer=default, stop_when=right + 0.01).select(QUESTION)
    assert patient.ended == "complete"


def test_a_poor_answer_is_none(loopback, provider, default):
    loopback.replies["m"] = [Reply(text=WRONG)]
    score = float(default.score(QUESTION, [WRONG])[0])
    with pytest.raises(NoGoodAnswer, match="no good answer") as caught:
        Selector([provider("m")], samples=2, scorer=default, abstain_below=score + 0.01).select(QUESTION)
    assert caught.value.selection.text == WRONG
    assert caught.value.selection.cost > 0
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.selection) == (str(caught.value), caught.value.selection)
    assert Selector([provider("m")], samples=1, scorer=default, abstain_below=score - 0.01).select(QUESTION).text


def test_concurrency_is_bounded_over_all_selections(tiny):
    counting = Counting()
    Selector([counting], samples=5, scorer=tiny, max_concurrency=4).batch(["q"] * 8)
    assert counting.most == 4

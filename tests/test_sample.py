from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest
from disk import full_disk
from loopback import Reply

from cappy_select import (
    Candidate,
    InContext,
    OpenAIProvider,
    Plan,
    ReplayProvider,
    Sampling,
    Usage,
)
from cappy_select.core.errors import DataError, InputError
from cappy_select.data.bulk import Limits
from cappy_select.data.formats import Problems
from cappy_select.data.instances import Instance
from cappy_select.data.sample import Sampler, import_recorded
from cappy_select.data.store import SampleStore

INSTANCES = [
    Instance(id=str(number), task="sums", instruction=f"What is {number} + 1?", references=(str(number + 1),))
    for number in range(6)
]
QUICK = Limits(max_retries=0, timeout_s=10)


@pytest.fixture
def store(tmp_path):
    with SampleStore(tmp_path / "samples.db", write=True) as opened:
        yield opened


def sampler(store, models, instances=INSTANCES, limits=QUICK, **more) -> Sampler:
    return Sampler(lambda: instances, models, store, limits=limits, **more)


def responses(store, instance=INSTANCES[0]):
    return [stored.sample.response for stored in store.samples(instance)]


def test_every_instance_is_asked_as_often_as_the_plan_says(direct, loopback, store):
    loopback.replies["a"] = [Reply(text=str(number)) for number in range(18)]
    outcome = sampler(store, [direct("a")], samples=3).run()
    assert (outcome.answers, outcome.failures, outcome.stopped) == (18, 0, {})
    assert store.counts() == {"a": 18}
    asked = [request["messages"][0]["content"] for request in loopback.requests]
    assert sorted(asked) == sorted([instance.instruction for instance in INSTANCES] * 3)
    (first, *_) = store.samples(INSTANCES[0])
    assert first.sample.usage.total_tokens == 14
    assert first.sample.cost == pytest.approx(18e-6)
    assert store.spent() == pytest.approx(outcome.cost) == pytest.approx(18 * 18e-6)


def test_what_is_there_is_not_asked_again(direct, loopback, store):
    sampler(store, [direct("a")], samples=2).run()
    before = len(loopback.requests)
    assert sampler(store, [direct("a")], samples=2).run().answers == 0
    assert len(loopback.requests) == before
    assert sampler(store, [direct("a")], samples=3).run().answers == 6  # one more each
    assert len(loopback.requests) == before + 6
    assert sampler(store, [direct("a")], samples=3, temperature=0.5).run().answers == 18  # other samples


def test_the_rest_of_a_half_asked_instance_is_asked_for_in_one_call(direct, loopback, store):
    loopback.gives_n = True
    loopback.replies["a"] = [Reply(text=str(number)) for number in range(5)]
    one = INSTANCES[:1]
    sampler(store, [direct("a")], one, samples=2).run()
    sampler(store, [direct("a")], one, samples=5).run()
    assert [request.get("n", 1) for request in loopback.requests] == [2, 3]
    assert responses(store) == ["0", "1", "2", "3", "4"]


def test_seeds_are_the_plans_own_whatever_was_asked_before(direct, loopback, store):
    plan = [Plan(samplings=(Sampling(n=n, seed=7),)) for n in (2, 4)]
    one = INSTANCES[:1]
    for each in plan:
        sampler(store, [direct("a")], one, plan=each).run()
    assert sorted(request["seed"] for request in loopback.requests) == [7, 8, 9, 10]
    assert len(responses(store)) == 4


def test_two_samplings_of_the_same_kind_do_not_share_a_key(direct, store):
    plan = Plan(samplings=(Sampling(n=2), Sampling(n=1, temperature=0.5), Sampling(n=2)))
    assert sampler(store, [direct("a")], plan=plan).run().answers == 30
    places = sorted((key.params, key.place) for key in store.keys(INSTANCES[0]))
    assert [place for _, place in places] == [0, 0, 1, 2, 3]


def test_examples_make_another_sample_of_the_same_instance(direct, loopback, store):
    examples = InContext(pool=[{"input": "What is 8 + 1?", "output": "9"}], k=1)
    sampler(store, [direct("a")], samples=1).run()
    assert sampler(store, [direct("a")], samples=1, examples=examples).run().answers == 6
    assert sampler(store, [direct("a")], samples=1, examples=examples).run().answers == 0
    assert "What is 8 + 1?" in json.dumps(loopback.requests[-1]["messages"])


def test_log_likelihoods_come_with_the_samples_and_make_no_other_key(direct, loopback, store):
    loopback.replies["a"] = [Reply(text="2", logprobs=[-0.5, -1.5])]
    sampler(store, [direct("a")], INSTANCES[:1], samples=1, logprobs=True).run()
    (stored,) = store.samples(INSTANCES[0])
    assert (stored.sample.logprob_sum, stored.sample.logprob_mean) == (-2.0, -1.0)
    assert sampler(store, [direct("a")], INSTANCES[:1], samples=1).run().answers == 0


def test_what_failed_is_kept_with_its_reason_and_asked_again(direct, loopback, store):
    loopback.replies["a"] = [Reply(status=500), Reply(text="ok")]
    outcome = sampler(store, [direct("a")], samples=1, limits=Limits(max_retries=0, concurrency=1)).run()
    assert (outcome.answers, outcome.failures) == (5, 1)
    (failed,) = store.failures()
    assert (failed.task, failed.id, failed.key.model, failed.kind) == ("sums", "0", "a", "server")
    assert sampler(store, [direct("a")], samples=1).run().answers == 1
    assert list(store.failures()) == []
    assert store.counts() == {"a": 6}


def test_what_asking_again_can_not_mend_is_asked_again_only_when_told(direct, loopback, store):
    loopback.replies["a"] = [Reply(status=400), Reply(text="ok")]
    one = INSTANCES[:1]
    sampler(store, [direct("a")], one, samples=1).run()
    asked = sampler(store, [direct("a")], one, samples=1)
    assert (asked.estimate()[0].samples, asked.estimate()[0].failed_before) == (0, 1)
    assert asked.run().answers == 0
    assert len(loopback.requests) == 1
    assert sampler(store, [direct("a")], one, samples=1, retry_failed=True).run().answers == 1


def test_a_wrong_key_stops_a_model_at_once_and_not_the_others(direct, loopback, store):
    loopback.replies["a"] = [Reply(status=401)]
    limits = Limits(max_retries=0, concurrency=1)
    outcome = sampler(store, [direct("a"), direct("b")], samples=1, limits=limits).run()
    assert loopback.calls_to("a") == 1
    assert store.counts() == {"b": 6}
    assert "auth" in outcome.stopped["a"]
    assert "b" not in outcome.stopped


def test_a_model_that_is_down_is_given_up(direct, loopback, store):
    loopback.replies["a"] = [Reply(status=500)]
    limits = Limits(max_retries=0, concurrency=1, give_up_after=3)
    outcome = sampler(store, [direct("a")], samples=1, limits=limits).run()
    assert loopback.calls_to("a") == 3
    assert "3 calls failed in a row" in outcome.stopped["a"]


MANY = [INSTANCES[0].model_copy(update={"id": str(number)}) for number in range(100)]


def test_a_dead_model_is_left_alone_tried_and_given_up_and_the_others_go_on(direct, loopback, store):
    loopback.replies["a"] = [Reply(status=500)]
    limits = Limits(max_retries=0, concurrency=1, cool_down_after=3, cool_down_s=0.3, max_pauses=2)
    started = time.monotonic()
    outcome = sampler(store, [direct("a"), direct("b")], MANY, samples=1, limits=limits).run()
    assert time.monotonic() - started >= 0.6
    assert loopback.calls_to("a") == 5  # three that found it down, and one after each pause
    assert "left alone for 0.3 s 2 times, and it still fails" in outcome.stopped["a"]
    assert store.counts() == {"b": 100}


def test_calls_that_wait_for_a_pause_end_when_their_model_is_given_up(direct, loopback, store):
    replies = [Reply(status=500, delay_s=0.3), Reply(status=401)]
    loopback.answer = lambda request: replies.pop(0) if len(replies) > 1 else replies[0]
    limits = Limits(max_retries=3, concurrency=8, cool_down_after=1, cool_down_s=60.0)
    started = time.monotonic()
    outcome = sampler(store, [direct("a")], MANY, samples=1, limits=limits).run()
    assert "auth" in outcome.stopped["a"]
    assert time.monotonic() - started < 30


def test_a_model_that_is_back_after_a_pause_answers_the_rest(direct, loopback, store):
    loopback.replies["a"] = [*[Reply(status=503)] * 4, Reply(text="here again")]
    limits = Limits(max_retries=0, concurrency=1, cool_down_after=3, cool_down_s=0.2, max_pauses=2)
    outcome = sampler(store, [direct("a")], MANY, samples=1, limits=limits).run()
    assert (outcome.stopped, outcome.failures) == ({}, 4)
    assert store.counts() == {"a": 96}


def test_a_retry_waits_for_the_pause_of_its_provider(direct, loopback, store):
    loopback.replies["a"] = [*[Reply(status=503)] * 6, Reply(text="here again")]
    limits = Limits(max_retries=2, concurrency=4, cool_down_after=1, cool_down_s=0.2, max_pauses=9)
    sampler(store, [direct("a")], MANY[:8], samples=1, limits=limits).run()
    assert store.counts()["a"] >= 6
    assert loopback.calls_to("a") <= 14


def test_errors_of_the_prompts_do_not_pause_a_model_and_end_it_when_they_are_many(direct, loopback, store):
    loopback.replies["a"] = [Reply(status=400)]
    limits = Limits(max_retries=0, concurrency=1, cool_down_after=2, cool_down_s=60.0)
    outcome = sampler(store, [direct("a")], MANY, samples=1, limits=limits).run()
    assert loopback.calls_to("a") == 20
    assert "20 calls failed in a row" in outcome.stopped["a"]


def test_the_budget_holds_over_all_runs(direct, loopback, store):
    call = 18e-6
    limits = Limits(max_retries=0, concurrency=4, max_cost=7 * call)
    first = sampler(store, [direct("a")], samples=2, limits=limits, max_tokens=4).run()
    assert "max_cost" in first.stopped["a"]
    assert 0 < first.answers < 12
    assert store.spent() <= limits.max_cost
    again = sampler(store, [direct("a")], samples=2, limits=limits, max_tokens=4).run()
    assert again.answers == 0
    more = limits.model_copy(update={"max_cost": 1.0})
    assert sampler(store, [direct("a")], samples=2, limits=more, max_tokens=4).run().answers == 12 - first.answers


def test_without_a_limit_of_tokens_the_budget_goes_by_what_calls_cost(direct, loopback, store):
    loopback.replies["a"] = [Reply(usage={"prompt_tokens": 10, "completion_tokens": 1000})]  # $0.00201
    limits = Limits(max_retries=0, concurrency=4, max_cost=0.02)
    outcome = sampler(store, [direct("a")], MANY, samples=1, limits=limits).run()
    assert "max_cost" in outcome.stopped["a"]
    assert store.spent() <= 0.02 + 3 * 0.00201  # the first four, of which nothing was known


def test_an_instance_that_stands_twice_is_asked_about_once(direct, loopback, store):
    twice = sampler(store, [direct("a")], INSTANCES[:1] * 10, samples=2)
    assert twice.estimate()[0].samples == 2
    assert twice.run().answers == 2
    assert store.spent() == pytest.approx(len(loopback.requests) * 18e-6)


def test_answers_without_a_price_leave_no_other_bill(loopback, store):
    provider = OpenAIProvider("a", api_base=loopback.base, api_key="k")
    assert sampler(store, [provider], samples=1).run().cost is None
    assert store.spent() is None
    assert store._rows("SELECT count(*) FROM bills") == [(0,)]


def test_a_budget_needs_a_price(loopback, store):
    provider = OpenAIProvider("a", api_base=loopback.base, api_key="k")
    with pytest.raises(InputError, match="price"):
        sampler(store, [provider], limits=Limits(max_cost=1.0))


def test_calls_are_begun_at_the_pace_that_was_set(direct, store):
    started = time.monotonic()
    sampler(store, [direct("a")], samples=1, limits=Limits(per_minute=600)).run()
    assert time.monotonic() - started >= 0.45  # six calls, 0.1 s apart


def test_no_more_calls_run_at_a_time_than_were_allowed(direct, loopback, store):
    running, most = 0, 0
    answer = loopback.next_reply

    def counted(model):
        nonlocal running, most
        with count:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with count:
            running -= 1
        return answer(model)

    count = threading.Lock()
    loopback.next_reply = counted
    sampler(store, [direct("a")], samples=4, limits=Limits(concurrency=3)).run()
    assert 2 <= most <= 3


def test_the_outlook_says_calls_samples_and_dollars_before_anything_is_asked(direct, loopback, store):
    sampler(store, [direct("a")], INSTANCES[:2], samples=1).run()
    asked = len(loopback.requests)
    (estimate,) = sampler(store, [direct("a")], samples=2, max_tokens=10).estimate()
    assert (estimate.stored, estimate.samples) == (2, 12)  # other samples: they have a limit
    prompts = sum(-(-len(instance.instruction) // 4) for instance in INSTANCES)
    assert estimate.cost == pytest.approx((prompts * estimate.calls / 6 + 12 * 2 * 10) * 1e-6)
    assert len(loopback.requests) == asked


def test_one_model_can_not_be_given_twice(direct, store):
    with pytest.raises(InputError, match="given twice"):
        sampler(store, [direct("a"), direct("a")])


def test_what_a_model_can_not_do_is_said_before_it_is_asked(direct, loopback, store):
    with pytest.raises(InputError, match="beams=4"):
        sampler(store, [direct("a")], plan=Plan(samplings=(Sampling(beams=4),)))
    assert loopback.requests == []


def test_a_lone_surrogate_in_an_answer_is_stored_as_a_question_mark(direct, loopback, store):
    loopback.replies["a"] = [Reply(body=None, text="\ud800!")]
    sampler(store, [direct("a")], INSTANCES[:1], samples=1).run()
    assert responses(store) in (["?!"], ["\ufffd!"])


def test_a_full_disk_ends_the_run_before_more_is_paid_for(direct, loopback, store):
    with full_disk(1000), pytest.raises(DataError, match="can't be written"):
        sampler(store, [direct("a")], samples=4, limits=Limits(concurrency=1)).run()
    assert loopback.requests == []  # what a call may cost is noted before it is made
    assert sampler(store, [direct("a")], samples=4).run().answers == 24


def test_lost_answers_count_as_promised_and_every_retry_is_promised_anew(direct, loopback, store):
    """The server writes whole answers, and loses the connection three times of four."""
    loopback.replies["a"] = [Reply(hang_up="mid-body", body=b"{" + b" " * 100)] * 3 + [Reply()]
    replies = loopback.replies["a"]
    loopback.answer = lambda request: replies[len(loopback.requests) % 4 - 1]
    most, many = 100 * 2e-6, [INSTANCES[0].model_copy(update={"id": str(number)}) for number in range(40)]
    limits = Limits(max_retries=5, concurrency=4, max_cost=30 * most, timeout_s=20)
    outcome = sampler(store, [direct("a")], many, limits=limits, samples=1, max_tokens=100).run()
    assert "max_cost" in outcome.stopped["a"]
    assert len(loopback.requests) <= 30  # each may have cost that
    assert store.spent() == pytest.approx(outcome.cost)
    assert 20 * most < store.spent() <= limits.max_cost
    asked = len(loopback.requests)
    sampler(store, [direct("a")], many, limits=limits, samples=1, max_tokens=100).run()
    assert len(loopback.requests) - asked <= 3  # answers that are known cost less than was promised


def test_an_answer_that_did_not_come_in_time_counts_as_promised(direct, loopback, store):
    loopback.replies["a"] = [Reply(delay_s=30)]
    limits = Limits(max_retries=0, timeout_s=0.5, max_cost=1.0)
    outcome = sampler(store, [direct("a")], INSTANCES[:1], limits=limits, samples=1, max_tokens=1000).run()
    assert outcome.answers == 0
    assert store.spent() == pytest.approx(outcome.cost)
    assert 0.002 <= store.spent() < 0.003


def test_an_answer_without_usage_counts_as_promised(direct, loopback, store):
    loopback.replies["a"] = [Reply(usage=None)]
    limits = Limits(max_cost=1.0)
    assert sampler(store, [direct("a")], INSTANCES[:1], limits=limits, samples=1, max_tokens=1000).run().answers == 1
    (stored,) = store.samples(INSTANCES[0])
    assert stored.sample.cost < 0.001
    assert 0.002 <= store.spent() < 0.003


def test_calls_that_nobody_saw_the_end_of_count_when_the_process_is_killed(loopback, tmp_path):
    file, path = tmp_path / "instances.jsonl", tmp_path / "samples.db"
    file.write_text("".join(each.model_dump_json() + "\n" for each in INSTANCES))
    loopback.replies["a"] = [Reply(delay_s=60)]
    code = (
        "import sys; from cappy_select import OpenAIProvider\n"
        "from cappy_select.data.bulk import Limits\n"
        "from cappy_select.data.instances import read_instances\n"
        "from cappy_select.data.formats import Problems\n"
        "from cappy_select.data.sample import Sampler\n"
        "from cappy_select.data.store import SampleStore\n"
        "file, path, base = sys.argv[1:]\n"
        "prices = {'input_cost_per_token': 1e-6, 'output_cost_per_token': 2e-6}\n"
        "with SampleStore(path, write=True) as store:\n"
        "    instances = lambda: (each for _, each in read_instances(file, Problems()))\n"
        "    provider = OpenAIProvider('a', api_base=base, api_key='k', **prices)\n"
        "    Sampler(instances, [provider], store, samples=1, limits=Limits(max_cost=1.0), max_tokens=1000).run()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, file, path, loopback.base])
    until = time.monotonic() + 60
    while len(loopback.requests) < 6 and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert len(loopback.requests) == 6
    with SampleStore(path, write=True) as store:
        assert 6 * 0.002 <= store.spent() < 6 * 0.003


class Giving:
    """A provider of a user's own that gives the same answers to everything, at a dollar each."""

    model = "giving"

    def __init__(self, *answers):
        self.answers, self.calls = answers, 0

    def price(self, usage):
        return 1.0

    async def complete(self, request):
        self.calls += 1
        return list(self.answers)


def odd_answer(text="fine", **more) -> Candidate:
    given = {"model": "giving", "message": {"role": "assistant", "content": text}, "cost": 1.0, "usage": Usage()}
    return Candidate.model_construct(**given | more)


@pytest.mark.parametrize(
    "odd",
    [
        {"text": "lone \ud800 surrogate"},
        {"text": "NUL \0 inside"},
        {"finish_reason": "\udfff" * 5},
        {"finish_reason": "x" * 5_000_000},
        {"model": "m\ud800"},
        {"usage": Usage(prompt_tokens=10**30)},
        {"usage": Usage.model_construct(prompt_tokens=-1, completion_tokens=-1, estimated=False)},
        {"logprob_sum": float("nan"), "logprob_mean": float("-inf")},
        {"logprobs": {"content": [{"logprob": 10**400}]}},
        {"cost": float("nan")},
        {"cost": "free"},
    ],
    ids=lambda odd: str(odd)[:40],
)
def test_what_a_store_can_not_hold_as_it_is_ends_no_run(store, odd):
    outcome = sampler(store, [Giving(odd_answer(**odd))], samples=1).run()
    assert (outcome.answers, outcome.failures) == (6, 0)
    assert outcome.cost == pytest.approx(6.0)
    assert store.spent() == pytest.approx(6.0)
    assert len(store.digest()) == 64
    for _, stored in store.instances():
        (sample,) = (each.sample for each in stored)
        sample.model_dump_json()
        assert len(sample.finish_reason or "") <= 1000


def test_an_answer_without_end_is_lost_alone_and_paid_for(store):
    endless = "x" * 100_000_001
    deep: object = "x"
    for _ in range(5000):
        deep = {"x": deep}
    call = {"function": {"name": "f", "arguments": deep}}
    sunk = odd_answer(message={"role": "assistant", "tool_calls": [call]})
    for lost, kept in ((odd_answer(endless), 4), (sunk, 6)):  # what is none at all is asked for again
        with SampleStore(store.path.with_name(str(id(lost))), write=True) as own:
            several = Giving(odd_answer("one"), lost, odd_answer("three"))
            several.unsupported = lambda params: ()  # it takes `n`
            run = Sampler(lambda: INSTANCES[:2], [several], own, samples=3, limits=QUICK).run()
            assert (run.answers, run.failures, run.stopped) == (kept, 6 - kept, {})
            assert "one" in responses(own)
            assert "three" in responses(own)
            assert own.spent() == pytest.approx(run.cost)
            assert run.cost == pytest.approx(several.calls * 3)


ROW = {
    "id": "7",
    "task": "rivers",
    "instruction": "Name a river.",
    "references": ["The Nile."],
    "candidates": [
        {"model": "x", "response": "The Nile.", "correct": True, "logprob_sum": -3.5, "logprob_mean": -0.5},
        {"model": "x", "response": "A lake."},
        {"model": "y", "response": "The Volga.", "human": 4.0, "sampling": {"temperature": 0.7}},
    ],
}


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_recorded_samples_come_in_once_with_what_is_known_of_them(store, tmp_path):
    file = write(tmp_path / "recorded.jsonl", ROW)
    assert import_recorded(file, store, Problems()) == 3
    assert import_recorded(file, store, Problems()) == 0
    ((instance, samples),) = store.instances()
    assert (instance.task, instance.id, instance.references) == ("rivers", "7", ("The Nile.",))
    assert [(s.sample.response, s.sample.quality, s.place) for s in samples] == [
        ("The Nile.", 1.0, 0), ("A lake.", None, 1), ("The Volga.", 0.75, 0),
    ]  # fmt: skip
    assert samples[0].sample.logprob_sum == -3.5
    assert store.spent() == 0  # they were not paid for here


def test_one_candidate_a_row_is_as_good_as_all_in_one(store, tmp_path):
    rows = [ROW | {"candidates": [candidate]} for candidate in [*ROW["candidates"], ROW["candidates"][0]]]
    file = write(tmp_path / "rows.jsonl", *rows)
    assert import_recorded(file, store, Problems()) == 4
    assert import_recorded(file, store, Problems()) == 0
    unnamed = write(tmp_path / "unnamed.jsonl", {k: v for k, v in ROW.items() if k not in ("id", "task")})
    assert import_recorded(unnamed, store, Problems()) == 3
    assert [instance.id for instance, _ in store.instances()] == ["7", "unnamed#1"]


def test_recorded_samples_of_chosen_models(store, tmp_path):
    assert import_recorded(write(tmp_path / "r.jsonl", ROW), store, Problems(), models={"y"}) == 1
    assert store.counts() == {"y": 1}


def test_recorded_rows_that_can_not_be_read_are_reported_by_line(store, tmp_path):
    bad = [ROW | {"candidates": None}, ROW | {"candidates": [{"model": "x"}]}, "{", ROW | {"references": None}]
    file = write(tmp_path / "r.jsonl", ROW, *bad, ROW | {"id": "8"})
    problems = Problems()
    assert import_recorded(file, store, problems) == 6
    assert [where.rpartition(":")[2] for where, _ in problems.listed] == ["2", "3", "4", "5"]
    with pytest.raises(InputError, match=r"r.jsonl:2: .*candidates"):
        import_recorded(file, store, Problems(strict=True))


def test_recorded_answers_can_be_sampled_through_their_provider_too(store, tmp_path):
    file = write(tmp_path / "r.jsonl", ROW)
    instance = Instance(id="7", task="rivers", instruction="Name a river.", references=())
    outcome = sampler(store, [ReplayProvider(file, "x")], [instance], samples=3).run()
    assert outcome.answers == 2
    assert responses(store, instance) == ["The Nile.", "A lake."]

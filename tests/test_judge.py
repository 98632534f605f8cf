from __future__ import annotations

import pytest
from loopback import Reply

from cappy_select.ask.recorded import Recorded
from cappy_select.data.bulk import Limits
from cappy_select.data.instances import Instance
from cappy_select.data.judge import Judge, mark_in
from cappy_select.data.store import SampleStore

INSTANCE = Instance(id="1", task="rivers", instruction="Name a river.", references=("The Nile.",))
ONE = Limits(max_retries=0, concurrency=1)


@pytest.fixture
def store(tmp_path):
    with SampleStore(tmp_path / "samples.db", write=True) as opened:
        answers = ["The Nile.", "A lake.", "The Volga."]
        known = Recorded(model="m", response="Known.", correct=True)
        rows = [(Recorded(model="m", response=text), 0) for text in answers]
        opened.add_recorded([(INSTANCE, [*rows, (Recorded(model="m", response="A lake."), 1), (known, 0)])])
        yield opened


@pytest.mark.parametrize(
    ("text", "mark"),
    [("7", 0.7), ("10", 1.0), ("0", 0.0), ("8/10", 0.8), ("I give it 3.", 0.3), ("5 or rather 6", None), ("7.0", 0.7),
     ("7 out of 10", 0.7), ("I give 8 of 10.", 0.8), ("3 (scale 0 to 10)", None), ("0% right", None), ("6, yes 6", 0.6),
     ("4/5", None), ("8 / 100", None), ("9 %", None), ("8-9", None), ("8–9", None), ("10/10", 1.0),
     ("**9**", 0.9), ("", None), ("good", None), ("11", None), ("7.5", None), ("-3", None), ("100", None)],
)  # fmt: skip
def test_a_mark_is_read_when_it_is_certain(text, mark):
    assert mark_in(text) == mark


def test_every_response_that_nobody_judged_is_marked_once_with_all_that_is_known_in_view(direct, loopback, store):
    loopback.replies["judge"] = [Reply(text="10"), Reply(text="2"), Reply(text="7")]
    judge = Judge(direct("judge"), store, limits=ONE)
    assert judge.left() == 3
    outcome = judge.run()
    assert (outcome.answers, outcome.failures) == (3, 0)
    assert sorted(store.judgements(INSTANCE, "judge").values()) == [0.2, 0.7, 1.0]
    asked = loopback.requests[0]["messages"][0]["content"]
    for part in ("Name a river.", "The Nile.", "from 0 (wrong) to 10"):
        assert part in asked
    assert store.spent_towards(1.0) == pytest.approx(3 * 18e-6)
    assert Judge(direct("judge"), store, limits=ONE).run().answers == 0
    assert len(loopback.requests) == 3


def test_a_judge_that_is_down_is_left_alone_and_given_up(direct, loopback, store):
    loopback.replies["judge"] = [Reply(status=500)]
    limits = Limits(max_retries=0, concurrency=1, cool_down_after=1, cool_down_s=0.1, max_pauses=1)
    outcome = Judge(direct("judge"), store, limits=limits).run()
    assert loopback.calls_to("judge") == 2  # of three responses
    assert "left alone" in outcome.stopped["judge"]


def test_an_answer_without_a_mark_is_told_and_asked_again(direct, loopback, store):
    loopback.replies["judge"] = [Reply(text="well"), Reply(text="2")]
    judge = Judge(direct("judge"), store, limits=ONE)
    judge.run()
    assert (judge.unreadable, judge.left()) == (1, 1)
    assert Judge(direct("judge"), store, limits=ONE).run().answers == 1
    assert judge.left() == 0


def test_a_judge_that_is_down_is_given_up(direct, loopback, store):
    loopback.replies["judge"] = [Reply(status=401)]
    outcome = Judge(direct("judge"), store, limits=ONE).run()
    assert "auth" in outcome.stopped["judge"]
    assert loopback.calls_to("judge") == 1

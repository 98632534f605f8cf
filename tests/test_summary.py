from __future__ import annotations

import json

import pytest
from tasks import choice, open_ended, write

from cappy_select.ask.recorded import Recorded
from cappy_select.core.errors import InputError
from cappy_select.data.build import build
from cappy_select.data.instances import Instance
from cappy_select.data.store import Key, SampleStore
from cappy_select.data.summary import summary_of

ROWS = [choice(number) for number in range(30)] + [open_ended(number) for number in range(20)]


def test_of_instances(tmp_path):
    long = open_ended(99, instruction="word " * 600)
    summary = summary_of(write(tmp_path / "t.jsonl", [*ROWS, long, "{"]), examples=3)
    assert (summary.holds, summary.rows, summary.measured) == ("instances", 51, 51)
    assert summary.counts == {"task": {"colors": 30, "facts": 21}, "answers": {"with choices": 30, "open": 21}}
    assert (sum(summary.lengths), summary.lengths[0], summary.lengths[-1]) == (51, 50, 1)
    assert [where.rpartition(":")[2] for where, _ in summary.left_out] == ["52"]
    assert len(summary.examples) == 3


def test_a_few_rows_of_many_are_drawn_from_all_of_them(tmp_path):
    rows = [open_ended(number, "first") for number in range(2500)] + [open_ended(n, "second") for n in range(2500)]
    summary = summary_of(write(tmp_path / "t.jsonl", rows), examples=2000)
    of_second = sum(row["task"] == "second" for row in summary.examples)
    assert 800 < of_second < 1200


def test_of_pairs_as_a_folder_and_as_a_file(tmp_path):
    file = write(tmp_path / "t.jsonl", ROWS)
    build([file], tmp_path / "out", config={"validation": 0.2, "rows_per_shard": 40})
    folder = summary_of(tmp_path / "out")
    assert (folder.holds, folder.rows) == ("pairs", 30 * 4 + 20 * 2)
    assert folder.counts == {"task": {"colors": 120, "facts": 40}, "kind": {"mismatch": 110, "gold": 50}}
    assert folder.scores == [110] + [0] * 18 + [50]
    one = summary_of(next((tmp_path / "out").glob("train-*.parquet")))
    assert one.holds == "pairs"
    assert 0 < one.rows < 60


def test_of_samples(tmp_path):
    instance = Instance(**open_ended(1))
    with SampleStore(tmp_path / "s.db", write=True) as store:
        store.add(instance, [(Key("m", "{}", 0), Recorded(model="m", response="x", correct=True))])
        store.add_failures(instance, [Key("m", "{}", 1)], "server", "down")
        assert store.counts() == {"m": 1}
    summary = summary_of(tmp_path / "s.db")
    assert (summary.holds, summary.rows, summary.counts["model"]) == ("samples", 1, {"m": 1})
    assert summary.scores == [0] * 19 + [1]
    assert summary.failures == ["facts facts#1: m #1: server: down"]
    assert summary.examples[0]["response"] == "x"


def test_of_nothing(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "text.db").write_text("text")
    for path, message in [("nowhere", "no such file"), ("other", "no pairs"), ("text.db", "not a sample store")]:
        with pytest.raises(InputError, match=message):
            summary_of(tmp_path / path)
    assert json.loads(summary_of(write(tmp_path / "e.jsonl", [])).model_dump_json())["rows"] == 0

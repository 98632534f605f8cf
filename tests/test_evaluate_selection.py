from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from commands import ok
from typer.testing import CliRunner

from cappy_select import InputError
from cappy_select.ask.recorded import Recorded
from cappy_select.cli.eval import app
from cappy_select.evaluate.baselines import final_answer
from cappy_select.evaluate.report import markdown, write_report
from cappy_select.evaluate.selection import COMPARED, evaluate_selection, selection_report


def answer(model, response, correct=None, **more):
    return {"model": model, "response": response, "correct": correct} | more


ROWS = [
    {
        "id": "1", "instruction": "What is 17 + 25?", "references": ["42"],
        "candidates": [answer("a", "It is 41.", False), answer("b", "17 + 25 = 42", True), answer("c", "42!", True)],
    },
    {
        "id": "2", "instruction": "What is 5 x 200?", "references": ["1000"],
        "candidates": [
            answer("a", "5 x 200 = 1,000", True), answer("b", "The answer is 1000.0", True),
            answer("c", "I would say that it is 52 and not any more than that.", False),
        ],
    },
]  # fmt: skip


@pytest.fixture
def file(tmp_path):
    def write(rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_every_way_to_pick_is_what_it_says(file, tiny):
    report = evaluate_selection(file(ROWS), tiny)
    assert (report.n, report.candidates) == (2, 3)
    assert report.random == pytest.approx(2 / 3)
    assert report.first == 0.5
    assert report.longest == 0.5
    assert (report.best_model, report.best_single) == ("b", 1.0)
    assert report.vote == 1.0  # 42 twice; 1,000 and 1000.0 are one number
    assert report.oracle == 1.0
    picked = [max(range(3), key=lambda i: tiny.score(r["instruction"], [c["response"] for c in r["candidates"]])[i]) for r in ROWS]  # fmt: skip  # noqa: E501
    assert report.cappy == sum(r["candidates"][i]["correct"] for r, i in zip(ROWS, picked, strict=True)) / 2


def test_human_ratings_become_fractions_and_free_text_does_not_compare(file, tiny):
    candidates = [answer("a", "one summary", human=5), answer("b", "another one", human=2)]
    report = evaluate_selection(file([{"id": "1", "instruction": "Sum up.", "candidates": candidates}]), tiny)
    assert (report.random, report.first, report.oracle) == (pytest.approx(0.625), 1.0, 1.0)
    assert report.vote is None


def test_gains_are_paired_instance_by_instance(file, tiny):
    rows = [
        {
            "id": str(number), "instruction": f"question {number}", "references": ["1"],
            "candidates": [answer("a", "one", bool(number % 4)), answer("b", "two two", False)],
        }
        for number in range(40)
    ]  # fmt: skip
    report = evaluate_selection(file(rows), tiny)
    assert set(report.gains) == set(COMPARED) - {"vote"}
    for way, gain in report.gains.items():
        assert gain.mean == pytest.approx(report.cappy - getattr(report, way))
    responses = [candidate["response"] for candidate in rows[0]["candidates"]]
    first = np.array([tiny.score(row["instruction"], responses).argmax() == 0 for row in rows])
    right = np.arange(40) % 4 > 0
    differences = first * right - right / 2
    found = report.gains["random"]
    assert found.high - found.low == pytest.approx(2 * 1.96 * differences.std() / 40**0.5, abs=0.03)
    # Where the picks are the same nothing differs, however much the quality itself does.
    same = evaluate_selection(file([row | {"candidates": row["candidates"][:1]} for row in rows]), tiny)
    assert {(gain.mean, gain.low, gain.high) for gain in same.gains.values()} == {(0, 0, 0)}


def test_the_scorer_is_audited_on_the_answers(file, tiny):
    report = evaluate_selection(file(ROWS), tiny).audit
    assert (report.prompts, report.answers) == (2, 6)
    assert [band.n for band in report.bands] == [2, 0, 0, 0, 4]
    scores = [float(s) for r in ROWS for s in tiny.score(r["instruction"], [c["response"] for c in r["candidates"]])]
    assert [each.score for each in report.bins] == pytest.approx(sorted(scores), abs=1e-5)


class Silent:
    """A scorer that gives no number for some instructions."""

    bundle = "silent"

    def score_detailed(self, pairs, on_progress=None):
        scores = np.array([np.nan if "17" in instruction else 1 for instruction, _ in pairs], np.float32)
        return SimpleNamespace(scores=scores, cut=np.zeros(len(pairs), np.int32))


def test_an_instance_without_a_score_is_wrong_and_counted(file):
    right = ROWS[0] | {"candidates": ROWS[0]["candidates"][1:]}
    report = evaluate_selection(file([right, ROWS[1]]), Silent(), strategies=["argmax"])
    assert (report.first, report.cappy, report.strategies["argmax"], report.unscored) == (1.0, 0.5, 0.5, 1)
    text = markdown(selection_report([report]))
    assert "To 1 instances the scorer gave no number: its pick counts as wrong there." in text
    assert "as few as 2 instances" in text
    assert "where it has no answer it counts as wrong" in text


@pytest.mark.parametrize("count", [1, 45])
def test_one_report_for_all_files(file, tiny, tmp_path, count):
    found = evaluate_selection(file(ROWS), tiny, strategies=["vote", "quality_cost"])
    report = selection_report([found] * count)
    assert len({picture.name for picture in report.pictures}) == count + 1
    assert write_report(tmp_path / "out", replace(report, pictures=report.pictures[:2]))
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.count("| picked by |") == text.count("Expected calibration error") == count
    assert "no costs recorded" in text
    assert {file.name for file in (tmp_path / "out").glob("*.png")} == {
        "selection.png", "audit.png" if count == 1 else "audit-1.png",
    }  # fmt: skip


def test_the_command_writes_what_it_prints(file, tmp_path):
    done = ok("eval", "selection", file(ROWS), "--out", tmp_path / "out", "--json")
    printed = json.loads(done.stdout)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == {"files": [printed]}
    assert set(printed["gains"]["first"]) == {"mean", "low", "high"}
    assert "report.html" in done.stderr


@pytest.mark.parametrize(
    "verb",
    [["selection", "x"], ["zeroshot", "x"], ["scaling", "x"], ["bigbench", "-m", "x"], ["ablation", "--recorded", "x"]],
)
def test_an_out_that_is_a_file_is_said_before_anything_else(tmp_path, verb):
    (tmp_path / "out").write_text("mine")
    done = CliRunner().invoke(app, [*verb, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, InputError)
    assert "out is a file; give another folder" in str(done.exception)


def test_limit_and_progress(file, tiny):
    seen = []
    report = evaluate_selection(file(ROWS), tiny, limit=1, on_progress=lambda done, total: seen.append((done, total)))
    assert report.n == 1
    assert sum(done for done, _ in seen) == seen[0][1] == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no instances"),
        ([ROWS[0] | {"candidates": []}], "no candidates"),
        ([ROWS[0] | {"candidates": [{"model": "a", "response": "x"}]}], "neither 'correct' nor 'human'"),
        ([ROWS[0] | {"candidates": [answer("a", "x", human=9)]}], "human"),
    ],
)
def test_what_cannot_be_judged_is_named(file, tiny, rows, message):
    with pytest.raises(InputError, match=message):
        evaluate_selection(file(rows), tiny)


@pytest.mark.parametrize(
    ("response", "references", "recorded", "expected"),
    [
        ("so 3 + 4 = 7\nA: 26,001.", ["26000"], None, "26001"),
        ("minus: -12.50", ["3"], None, "-12.5"),
        ("10-3", ["3"], None, "3"),
        ("4,5,6", ["3"], None, "6"),
        ("1234568", ["3"], None, "1234568"),
        ("no number", ["3"], None, ""),
        ("The  Amazon, river!", ["Amazon"], None, "amazon river"),
        ("long story", ["x"], "(B)", "b"),
    ],
)
def test_the_final_answer(response, references, recorded, expected):
    assert final_answer(Recorded(model="m", response=response, answer=recorded), references) == expected

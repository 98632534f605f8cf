"""`cappy eval scaling`: expected quality of the best of N, and whether more samples make it worse."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tasks import write

from cappy_select import InputError
from cappy_select.ask.recorded import Recorded
from cappy_select.data.instances import Instance
from cappy_select.data.store import Key, SampleStore
from cappy_select.evaluate.report import markdown
from cappy_select.evaluate.scaling import best_of, evaluate_scaling, scaling_report, steps


class Lengths:
    """A scorer that prefers long responses; an empty one it can't judge."""

    bundle = "lengths"

    def score_detailed(self, pairs, on_progress=None):
        if on_progress is not None:
            on_progress(len(pairs))
        scores = np.array([len(response) or np.nan for _, response in pairs], np.float32)
        return SimpleNamespace(scores=scores, cut=np.zeros(len(pairs), np.int32))


class Scores(Lengths):
    """One that can judge an empty one too."""

    def score_detailed(self, pairs, on_progress=None):
        return super().score_detailed([(instruction, response + ".") for instruction, response in pairs], on_progress)


def row(number, right, lengths, **more):
    """Answers of these lengths, right or not."""
    answers = [{"model": "m", "response": "x" * n, "correct": bool(yes)} for n, yes in zip(lengths, right, strict=True)]
    return {"id": str(number), "instruction": "q", "candidates": [answer | more for answer in answers]}


def test_the_best_of_n_is_the_mean_over_all_sets_of_n():
    random = np.random.default_rng(0)
    by, values = random.integers(0, 4, (3, 7)).astype(float), random.random((3, 7))  # with ties
    for count in range(1, 8):
        sets = [list(places) for places in itertools.combinations(range(7), count)]
        expected = [np.mean([one[places[np.argmax(key[places])]] for places in sets]) for key, one in zip(by, values, strict=True)]  # fmt: skip  # noqa: E501
        assert best_of(count, by, values) == pytest.approx(expected)


def test_the_numbers_of_samples_double_up_to_all():
    assert [steps(size) for size in (2, 6, 16, 17)] == [[1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16], [1, 2, 4, 8, 16, 17]]


def test_one_curve_is_over_instances_with_the_same_number_of_answers(tmp_path):
    rows = [
        row(1, [0, 1, 0, 1], [1, 2, 3, 4]), row(2, [0, 0, 0, 1], [1, 2, 3, 4]),
        row(3, [1, 1], [1, 2]), row(4, [1, 1, 1, 1], [0, 1, 2, 3]), row(5, [1], [1]),
    ]  # fmt: skip
    seen = []
    found = evaluate_scaling(
        write(tmp_path / "rows.jsonl", rows), Lengths(), on_progress=lambda done, total: seen.append((done, total))
    )
    assert (found.n, found.candidates, found.left_out, found.quality) == (2, 4, 3, "recorded")
    first, second, last = found.points
    assert [point.samples for point in found.points] == [1, 2, 4]
    assert (first.cappy, first.random, first.oracle) == pytest.approx((3 / 8,) * 3)
    assert second.cappy == pytest.approx(
        (4 / 6 + 3 / 6) / 2
    )  # of six pairs: those with the fourth, and the one of 1, 2
    assert second.oracle == pytest.approx((5 / 6 + 3 / 6) / 2)
    assert (last.cappy, last.oracle, last.score, last.self_scoring) == (1, 1, 4, None)
    assert (found.peak, found.fall, found.over_optimised) == (4, None, False)
    assert seen == [(12, 12)]
    assert "3 instances without exactly 4 scored answers were left out" in markdown(scaling_report([found]))


def test_a_score_that_rises_while_quality_falls_is_said(tmp_path):
    # The longest of eight is always wrong, the next three right: two or four samples are better than all.
    rows = [row(number, [0, 0, 0, 0, 1, 1, 1, 0], range(1, 9)) for number in range(30)]
    found = evaluate_scaling(write(tmp_path / "rows.jsonl", rows), Lengths())
    assert (found.peak, found.points[-1].cappy) == (2, 0)
    assert found.over_optimised
    assert found.fall.high < 0
    assert found.verdict.startswith("Over-optimisation: from 2 to 8 samples quality changes by -53.6")
    assert found.points[-1].score == 8 > found.points[1].score


def test_a_fall_within_chance_is_no_over_optimisation(tmp_path):
    rows = [row(number, [0, 1] if number % 2 else [1, 0], [1, 2]) for number in range(15)]
    found = evaluate_scaling(write(tmp_path / "rows.jsonl", rows), Lengths())
    assert (found.peak, found.over_optimised) == (1, False)
    assert found.fall.low < 0 < found.fall.high
    assert "the interval includes 0" in found.verdict


def test_a_fall_while_the_score_stands_still_is_no_over_optimisation_nor_within_chance(tmp_path):
    # Answers of one length: the first of a tie is always wrong.
    rows = [row(number, [0, 1], [2, 2]) for number in range(15)]
    found = evaluate_scaling(write(tmp_path / "rows.jsonl", rows), Lengths())
    assert (found.fall.high, found.over_optimised) == (-0.5, False)
    assert found.verdict.startswith("No over-optimisation, for the score does not rise with it")
    assert "-50.0 (-50.0 to -50.0)" in found.verdict
    assert "includes 0" not in found.verdict
    (only,) = (evaluate_scaling(write(tmp_path / "rows.jsonl", rows[:1]), Lengths()),)
    assert (only.fall.high, only.over_optimised) == (None, False)
    assert "one instance tells nothing" in only.verdict


def test_answers_to_prompts_with_examples_are_left_out_and_models_that_are_pooled_counted(tmp_path):
    store = tmp_path / "samples.db"
    instance = Instance(id="1", task="t", instruction="q", references=("xxx",))
    with SampleStore(store, write=True) as opened:
        for place, params in enumerate([{}, {}, {}, {"prompt": "shown"}]):
            for model in "mn":
                sample = Recorded(model=model, response="x" * place, sampling=params)
                opened.add(instance, [(Key(model, json.dumps(params), place), sample)])
    with SampleStore(store) as opened:
        assert len(next(opened.instances())[1]) == 8
    found = evaluate_scaling(store, Scores())
    assert (found.candidates, found.in_context, found.models) == (6, 2, 2)
    text = markdown(scaling_report([found]))
    assert "2 answers to prompts with examples were left out" in text
    assert "Answers of 2 models are pooled" in text
    assert evaluate_scaling(store, Scores(), models=["m"]).models == 1


def test_references_that_the_label_can_not_read_are_counted_and_no_warning(tmp_path, recwarn):
    rows = [
        {
            "id": text, "instruction": "q", "references": [text],
            "candidates": [{"model": "m", "response": one} for one in ("x", "yy")],
        }
        for text in ("हाँ", "x")
    ]  # fmt: skip
    found = evaluate_scaling(write(tmp_path / "rows.jsonl", rows), Lengths())
    assert found.unscorable == 1
    assert "1 instances score 0 whatever is answered" in markdown(scaling_report([found]))
    assert not recwarn.list
    assert evaluate_scaling(write(tmp_path / "rows.jsonl", rows), Lengths(), label="rouge_l_unicode").unscorable == 0


def test_a_stores_samples_are_measured_by_a_label_and_by_their_own_likelihood(tmp_path):
    store = tmp_path / "samples.db"
    with SampleStore(store, write=True) as opened:
        for number in range(2):
            instance = Instance(id=str(number), task="t", instruction=f"q{number}", references=("the nile",))
            answers = [("a very long answer", -9.0), ("the nile", -1.0), ("the", -5.0)]
            opened.add(
                instance,
                [
                    (Key(model, "{}", place), Recorded(model=model, response=text, logprob_sum=value))
                    for model in "mn"
                    for place, (text, value) in enumerate(answers)
                ],
            )
    found = evaluate_scaling(store, Lengths(), models=["m"])
    assert (found.n, found.candidates, found.quality) == (2, 3, "rouge_l")
    assert found.points[-1].cappy == 0
    assert found.points[-1].self_scoring == found.points[-1].oracle == 1
    assert found.points[0].random == pytest.approx((0 + 1 + 2 / 3) / 3)
    assert evaluate_scaling(store, Lengths(), label="exact").points[0].random == pytest.approx(1 / 3)
    assert evaluate_scaling(store, Lengths()).candidates == 6


def test_what_can_not_be_compared_is_one_error(tmp_path):
    unknown = {"id": "7", "instruction": "q", "candidates": [{"model": "m", "response": "x"}] * 2}
    with pytest.raises(InputError, match="'7' has answers without 'correct' or 'human', and no references"):
        evaluate_scaling(write(tmp_path / "unknown.jsonl", [unknown]), Lengths())
    with pytest.raises(InputError, match="no instance has two answers of z"):
        evaluate_scaling(write(tmp_path / "other.jsonl", [unknown]), Lengths(), models=["z"])
    with pytest.raises(InputError, match="gave no number"):
        evaluate_scaling(write(tmp_path / "empty.jsonl", [row(1, [1, 0], [0, 0])]), Lengths())


def test_the_command_writes_a_report_of_every_file(tmp_path):
    rows = [row(number, [0, 1, 0], [1, 2, 3]) for number in range(3)]
    files = [write(tmp_path / f"{name}.jsonl", rows) for name in "ab"]
    command = [sys.executable, "-m", "cappy_select", "eval", "scaling", *files]
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["files"]
    assert [(one["file"], one["n"], one["candidates"]) for one in found] == [("a.jsonl", 3, 3), ("b.jsonl", 3, 3)]
    folder = tmp_path / "runs" / "eval" / "scaling"
    assert json.loads((folder / "report.json").read_text())["files"] == found
    assert {"scaling-1.png", "scaling-2.png", "report.html"} <= {path.name for path in folder.iterdir()}
    shown = subprocess.run([*command, "--limit", "2"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "a.jsonl: 2 instances with 3 answers each" in shown.stdout
    assert "ver-optimisation" in shown.stderr

"""`cappy eval zeroshot`: accuracy over templates and tasks, the baselines, a paired comparison."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from cappy_select import InputError
from cappy_select.evaluate.zeroshot import evaluate_zeroshot


class Fixed:
    """A scorer whose scores are written into the responses: "yes|0.7" and, for the second one, after it "|0.2"."""

    def __init__(self, column=1):
        self.bundle, self.column = f"fixed {column}", column

    def score_detailed(self, pairs, on_progress=None):
        scores = np.array([float(response.split("|")[self.column]) for _, response in pairs], np.float32)
        if on_progress is not None:
            on_progress(len(pairs))
        return SimpleNamespace(scores=scores, cut=np.zeros(len(pairs), np.int32))


def row(number, task, template, right, scores, others=None):
    """Choices "a", "bb", "ccc", of which the one at `right` is the reference."""
    others = others or scores
    texts = [
        f"{'abc'[i] * (i + 1)}|{score}|{other}" for i, (score, other) in enumerate(zip(scores, others, strict=True))
    ]
    return {
        "id": f"{task}-{template}-{number}", "task": task, "template": template, "group": f"{task}-{number}",
        "instruction": f"question {number}", "references": [texts[right]], "choices": texts,
    }  # fmt: skip


def written(path, rows):
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def test_templates_count_the_same_and_so_do_tasks(tmp_path):
    rows = [
        row(1, "t", "x", 0, [0.9, 0.1]), row(2, "t", "x", 0, [0.9, 0.1]), row(3, "t", "x", 0, [0.9, 0.1]),
        row(1, "t", "y", 1, [0.9, 0.1]),
        row(1, "u", None, 2, [0.1, 0.2, 0.3]),
    ]  # fmt: skip
    report = evaluate_zeroshot([written(tmp_path / "rows.jsonl", rows)], Fixed())
    t, u = report.tasks
    assert (t.task, t.n, t.templates, t.cappy, t.median, t.quartiles) == ("t", 4, 2, 0.5, 0.5, (0.25, 0.75))
    assert (u.cappy, u.chance, u.longest) == (1.0, pytest.approx(1 / 3), 1.0)
    assert (t.chance, t.majority, t.longest) == (0.5, 0.5, 0.5)
    assert report.cappy == 0.75
    assert report.n == 5


def test_rows_that_can_not_be_judged_are_left_out_and_counted(tmp_path):
    good = row(1, "t", "x", 0, [0.9, 0.1])
    rows = [
        good, good | {"choices": None}, good | {"references": ["neither"]}, good | {"references": good["choices"]},
        row(2, "t", "x", 0, [0.9, 0.1, 0.2]),
    ]  # fmt: skip
    file = written(tmp_path / "rows.jsonl", rows)
    report = evaluate_zeroshot([file], Fixed(), choices=(2, 2))
    assert (report.n, report.left_out) == (1, 4)
    with pytest.raises(InputError, match="8 to 9 choices"):
        evaluate_zeroshot([file], Fixed(), choices=(8, 9))


def test_a_better_scorer_has_an_interval_above_0_and_an_equal_one_has_not(tmp_path):
    rows = [
        row(number, task, template, 0, [0.9, 0.1], [0.9, 0.1] if number % 2 else [0.1, 0.9])
        for number in range(40) for task in "tu" for template in "xy"
    ]  # fmt: skip
    file = written(tmp_path / "rows.jsonl", rows)
    better = evaluate_zeroshot([file], Fixed(1), against=Fixed(2)).against
    assert better is not None
    assert (better.mean, better.difference) == (pytest.approx(0.5), pytest.approx(0.5))
    # An example has all its templates in a resample: 80 independent halves, whose mean has a deviation of 0.056.
    assert better.low == pytest.approx(0.39, abs=0.015)
    assert better.high == pytest.approx(0.61, abs=0.015)
    same = evaluate_zeroshot([file], Fixed(1), against=Fixed(1)).against
    assert same is not None
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_the_command_prints_a_table_and_json(tmp_path):
    rows = [
        {
            "id": str(number), "task": "capitals", "instruction": f"{number}. Is fire hot?", "references": ["yes"],
            "choices": ["no", "yes"],
        }
        for number in range(3)
    ]  # fmt: skip
    file = written(tmp_path / "rows.jsonl", rows)
    command = [sys.executable, "-m", "cappy_select.cli", "eval", "zeroshot", file]
    done = subprocess.run([*command, "--against", "cappy_select/bundles/cappy-mini"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "capitals" in done.stdout
    assert "+0.0 points" in done.stderr
    report = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert report["n"] == 3
    assert report["against"] is None
    bad = subprocess.run([*command, "--choices", "3", "4"], capture_output=True, text=True)
    assert bad.returncode == 2
    assert "3 to 4 choices" in bad.stderr
    assert "Traceback" not in bad.stderr

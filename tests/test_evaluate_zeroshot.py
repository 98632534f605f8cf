"""`cappy eval zeroshot`: accuracy over templates and tasks, the baselines, a paired comparison, the paper's models."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import cappy, ok

from cappy_select import InputError
from cappy_select.bundle.bundle import EMBEDDED, Bundle, load_bundle
from cappy_select.bundle.manifest import Manifest
from cappy_select.data.formats import Problems
from cappy_select.data.readers.prompt_templates import FILE_NAME
from cappy_select.data.sources import ZEROSHOT
from cappy_select.evaluate.paper import PUBLISHED, TASKS, beside_paper, named_parameters, paper_task
from cappy_select.evaluate.report import markdown, write_report
from cappy_select.evaluate.zeroshot import (
    evaluate_zeroshot,
    graph_parameters,
    read_files,
    read_paper_tasks,
    zeroshot_report,
)


class Fixed:
    """A scorer whose scores are written into the responses: "yes|0.7" and, for the second one, after it "|0.2"."""

    def __init__(self, column=1):
        files = {name: {"sha256": "0" * 64, "size_bytes": 400} for name in ("model.onnx", "tokenizer.json")}
        manifest = Manifest(name=f"fixed {column}", architecture="none", max_length=8, precision="fp32", files=files)
        self.bundle, self.column = Bundle(Path(), manifest, ""), column

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
    report = evaluate_zeroshot(read_files([written(tmp_path / "rows.jsonl", rows)]), Fixed())
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
    report = evaluate_zeroshot(read_files([file]), Fixed(), choices=(2, 2))
    assert (report.n, report.left_out) == (1, 4)
    with pytest.raises(InputError, match="8 to 9 choices"):
        evaluate_zeroshot(read_files([file]), Fixed(), choices=(8, 9))


def test_a_better_scorer_has_an_interval_above_0_and_an_equal_one_has_not(tmp_path):
    rows = [
        row(number, task, template, 0, [0.9, 0.1], [0.9, 0.1] if number % 2 else [0.1, 0.9])
        for number in range(40) for task in "tu" for template in "xy"
    ]  # fmt: skip
    file = written(tmp_path / "rows.jsonl", rows)
    better = evaluate_zeroshot(read_files([file]), Fixed(1), against=Fixed(2)).against
    assert better is not None
    assert (better.mean, better.difference) == (pytest.approx(0.5), pytest.approx(0.5))
    # An example has all its templates in a resample: 80 independent halves, whose mean has a deviation of 0.056.
    assert better.low == pytest.approx(0.39, abs=0.015)
    assert better.high == pytest.approx(0.61, abs=0.015)
    same = evaluate_zeroshot(read_files([file]), Fixed(1), against=Fixed(1)).against
    assert same is not None
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_a_task_of_one_example_leaves_no_interval_and_few_are_said(tmp_path):
    rows = [row(number, "t", "x", 0, [0.9, 0.1], [0.1, 0.9]) for number in range(9)]
    file = written(tmp_path / "rows.jsonl", rows)
    few = evaluate_zeroshot(read_files([file]), Fixed(), against=Fixed(2))
    assert (few.fewest, few.against.low) == (9, 1)
    text = markdown(zeroshot_report(few))
    assert "as few as 9 examples of a task" in text
    assert "| fixed 2" in text.replace("other", "")  # its column has its name
    written(file, [*rows, row(1, "u", "x", 0, [0.9, 0.1]), row(1, "u", "y", 0, [0.9, 0.1])])
    one = evaluate_zeroshot(read_files([file]), Fixed(), against=Fixed(2))
    assert (one.fewest, one.against.low, one.against.high) == (1, None, None)
    assert "(95 %: no interval: one instance)" in markdown(zeroshot_report(one))
    assert "as few as" not in markdown(zeroshot_report(evaluate_zeroshot(read_files([file]), Fixed())))


def test_rows_without_a_score_are_wrong_and_counted(tmp_path):
    rows = [row(1, "t", "x", 0, ["nan", "nan"]), row(2, "t", "x", 1, ["nan", -3.0])]
    report = evaluate_zeroshot(read_files([written(tmp_path / "rows.jsonl", rows)]), Fixed())
    assert (report.cappy, report.unscored) == (0.5, 1)
    assert "To 1 rows the scorer gave no number" in markdown(zeroshot_report(report))


def test_tasks_of_which_one_place_is_always_right_are_named(tmp_path):
    rows = [row(number, task, "x", number % 2 if task == "fair" else 0, [0.9, 0.1]) for number in range(4) for task in ("fair", "fixed")]  # fmt: skip  # noqa: E501
    text = markdown(zeroshot_report(evaluate_zeroshot(read_files([written(tmp_path / "r.jsonl", rows)]), Fixed())))
    assert "One place is always the right one, which is what majority takes: fixed." in text


def test_two_judges_of_one_name_are_an_error_and_none_is_dropped(tmp_path):
    file = written(tmp_path / "rows.jsonl", [row(1, "t", "x", 0, [0.9, 0.1])])
    with pytest.raises(InputError, match="two judges have the name 'fickle 7'"):
        evaluate_zeroshot(read_files([file]), Fixed(), judges=[Fickle(7), Fickle(7)])


class Fickle:
    """A judge that takes the choices of `right` rows of 10."""

    parameters = 7_000_000

    def __init__(self, right):
        self.right = right

    def judge(self, pairs, on_progress=None):
        first = np.arange(len(pairs)) // 2 % 10 < self.right
        return {f"fickle {self.right}": np.where(first, 1.0, -1.0) * np.tile([1.0, -1.0], len(pairs) // 2)}


def test_each_judge_has_an_accuracy_and_an_interval_of_its_own(tmp_path):
    rows = [row(number, "t", "x", 0, [0.9, 0.1]) for number in range(40)]
    file = written(tmp_path / "rows.jsonl", rows)
    report = evaluate_zeroshot(read_files([file]), Fixed(), judges=[Fickle(7), Fickle(10)])
    assert report.tasks[0].baselines == {"fickle 7": 0.7, "fickle 10": 1.0}
    seven, ten = report.baselines
    assert (seven.scorer, seven.mean, seven.difference) == ("fickle 7", pytest.approx(0.7), pytest.approx(0.3))
    assert 0.1 < seven.low < 0.2 < 0.4 < seven.high < 0.5
    assert (ten.difference, ten.low, ten.high) == (0, 0, 0)


def test_the_papers_numbers_are_those_it_prints():
    for model in PUBLISHED:
        if model.accuracies:
            assert len(model.accuracies) == len(TASKS)
            assert np.mean(model.accuracies) == pytest.approx(model.mean, abs=0.06)  # of rounded numbers
        assert named_parameters(model.name) in (None, model.parameters)
    assert list(ZEROSHOT) == list(TASKS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("anli_r1", "ANLI R1"), ("super_glue-cb", "CB"), ("super_glue/rte", "RTE"), ("glue/rte", "RTE"),
        ("super_glue-wsc.fixed", "WSC"), ("winogrande-winogrande_xl", "Winogrande"), ("WinoGender", "WinoGender"),
        ("super_glue/axg", "WinoGender"), ("story_cloze/2016", "StoryCloze"), ("crows_pairs", "CrowS-Pairs"),
        ("super_glue-copa", None), ("hellaswag", None), ("wic", "WiC"),
    ],
)  # fmt: skip
def test_tasks_of_other_spellings_are_the_papers(name, expected):
    assert paper_task(name) == expected


def test_only_common_tasks_count_beside_the_paper(tmp_path):
    rows = [
        row(1, "anli_r1", "x", 0, [0.9, 0.1]), row(1, "super_glue-cb", "x", 1, [0.9, 0.1]),
        row(1, "hellaswag", "x", 0, [0.9, 0.1]),
    ]  # fmt: skip
    report = evaluate_zeroshot(read_files([written(tmp_path / "rows.jsonl", rows)]), Fixed(), against=Fixed(2))
    paper = report.paper
    assert (paper.tasks, paper.chance) == (("ANLI R1", "CB"), 0.5)
    assert [(own.name, own.mean, own.parameters) for own in paper.ours] == [
        ("fixed 1 0", 0.5, 100),
        ("fixed 2 0", 0.5, 100),
    ]
    means = {model.name: model.mean for model in paper.published}
    assert means["T0-11B"] == pytest.approx((0.421 + 0.585) / 2)
    assert "Cappy base" not in means  # only its mean over all eleven is known
    whole = beside_paper([("ours", None, dict.fromkeys(TASKS, 0.5))], dict.fromkeys(TASKS, 0.4))
    assert {model.name: model.mean for model in whole.published}["Cappy base"] == pytest.approx(0.499)
    assert beside_paper([("ours", None, {"hellaswag": 0.5})], {"hellaswag": 0.5}) is None


def test_the_default_bundles_parameters_are_about_those_of_minilm():
    assert graph_parameters(load_bundle(EMBEDDED)) == pytest.approx(22.7e6, rel=0.05)


@pytest.mark.parametrize("tasks", [1, 45])
def test_a_report_has_the_pictures_it_can(tmp_path, tasks):
    rows = [row(1, f"task {number}", template, 0, [0.9, 0.1]) for number in range(tasks) for template in "xy"]
    if tasks > 1:
        rows.append(row(1, "anli_r1", "x", 0, [0.9, 0.1]))
    found = evaluate_zeroshot(read_files([written(tmp_path / "rows.jsonl", rows)]), Fixed(), judges=[Fickle(10)])
    assert write_report(tmp_path / "out", zeroshot_report(found))
    assert (tmp_path / "out" / "tasks.png").exists()
    assert (tmp_path / "out" / "parameters.png").exists() == (tasks > 1)
    assert ("Beside the paper" in (tmp_path / "out" / "report.md").read_text()) == (tasks > 1)


TEMPLATES = """dataset: super_glue
subset: cb
templates:
  a: !Template
    answer_choices: Yes ||| No ||| Maybe
    jinja: "{{premise}} So: {{hypothesis}}? ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      original_task: true
    name: so
  b: !Template
    answer_choices: Yes ||| No ||| Maybe
    jinja: "{{hypothesis}} ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      original_task: false
    name: turned
"""


@pytest.fixture
def promptsource(tmp_path):
    for data in ZEROSHOT.values():
        folder = tmp_path / "templates" / data.templates
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE_NAME).write_text(TEMPLATES)
    return tmp_path / "templates"


def test_the_papers_tasks_are_read_under_its_templates(promptsource, tmp_path):
    (promptsource / "anli" / FILE_NAME).unlink()
    folder = tmp_path / "copies" / "aps" / "super_glue" / "cb"
    folder.mkdir(parents=True)
    rows = [{"premise": f"It rains {n}.", "hypothesis": "It is wet", "label": n % 3} for n in range(4)]
    written(folder / "validation.jsonl", rows)
    problems = Problems()
    found = list(read_paper_tasks(promptsource, problems, copies=tmp_path / "copies"))
    assert {(each.task, each.template) for each in found} == {("CB", "so")}
    assert [each.references for each in found] == [("Yes",), ("No",), ("Maybe",), ("Yes",)]
    assert found[0].choices == ("Yes", "No", "Maybe")
    assert problems.count == 10  # no templates of ANLI, no copies of the others
    arguments = ("eval", "zeroshot", "--templates", promptsource, "--copies", tmp_path / "copies")
    done = ok(*arguments, "--out", tmp_path / "out", "--json")
    assert json.loads(done.stdout)["paper"]["tasks"] == ["CB"]
    assert "no copy of it there" in done.stderr


def test_without_files_and_a_network_one_error_says_what_to_do(promptsource, tmp_path):
    done = cappy("eval", "zeroshot", "--templates", promptsource, "--out", tmp_path / "out", HF_HUB_OFFLINE="1",
                 HF_HOME=str(tmp_path / "hf"))  # fmt: skip
    assert done.returncode == 2
    assert "the hub can't be reached" in done.stderr
    assert "give files of instances instead" in done.stderr
    assert "Traceback" not in done.stderr
    assert "promptsource" in cappy("eval", "zeroshot").stderr
    wrong = cappy("eval", "zeroshot", "--templates", tmp_path, "--out", tmp_path / "out")
    assert (wrong.returncode, "none of the paper's tasks" in wrong.stderr) == (2, True)
    both = cappy("eval", "zeroshot", "rows.jsonl", "--templates", promptsource)
    assert (both.returncode, "leave out" in both.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_a_table_and_json_and_writes_a_report(tmp_path):
    rows = [
        {
            "id": str(number), "task": "capitals", "instruction": f"{number}. Is fire hot?", "references": ["yes"],
            "choices": ["no", "yes"],
        }
        for number in range(3)
    ]  # fmt: skip
    command = ("eval", "zeroshot", written(tmp_path / "rows.jsonl", rows), "--out", tmp_path / "out")
    done = ok(*command, "--against", EMBEDDED)
    assert "capitals" in done.stdout
    assert "+0.0 points" in done.stderr
    assert str(tmp_path / "out" / "report.html") in done.stderr
    report = json.loads(ok(*command, "--json", "--parameters", "5").stdout)
    assert (report["n"], report["against"], report["paper"], report["parameters"]) == (3, None, None, 5)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    bad = cappy(*command, "--choices", "3", "4")
    assert bad.returncode == 2
    assert "3 to 4 choices" in bad.stderr
    assert "Traceback" not in bad.stderr

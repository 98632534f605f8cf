from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cappy_select import InputError
from cappy_select.data.formats import Problems
from cappy_select.data.readers import sniff
from cappy_select.data.readers.bigbench import read_bigbench

GENERATION = {"name": "sums", "task_prefix": "Add.", "examples": [{"input": "1+1", "target": ["2", "two"]}]}
CHOICE = {
    "name": "colours",
    "examples": [{"input": "The sky?", "target_scores": {"blue": 1, "red": 0, "green": 0, "azure": 1}}],
}


def put(folder, task):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_text(json.dumps(task))
    return folder / "task.json"


def read(source, problems=None, **options):
    return [one for _, one in read_bigbench(source, problems or Problems(strict=True), **options)]


def test_generation_has_the_default_prefixes(tmp_path):
    (only,) = read(put(tmp_path, GENERATION))
    assert only.instruction == "Add.\nQ: 1+1\nA:"
    assert (only.id, only.task, only.references, only.choices) == ("sums|#1", "sums", ("2", "two"), None)
    text = {**GENERATION, "examples": [{"input": "1+1", "target": "2"}], "task_prefix": ""}
    assert read(put(tmp_path, text))[0].references == ("2",)


def test_prefixes_of_the_task_are_kept(tmp_path):
    task = {**GENERATION, "example_input_prefix": "\nSum: ", "example_output_prefix": "\nIs: "}
    assert read(put(tmp_path, task))[0].instruction == "Add.\nSum: 1+1\nIs:"


def test_choices_are_listed_and_the_best_are_the_references(tmp_path):
    (only,) = read(put(tmp_path, CHOICE))
    assert set(only.references) == {"blue", "azure"}
    assert sorted(only.choices) == ["azure", "blue", "green", "red"]
    listed = "".join(f"\n  choice: {choice}" for choice in only.choices)
    assert only.instruction == f"Q: The sky?{listed}\nA:"
    orders = {read(tmp_path / "task.json", seed=seed)[0].choices for seed in range(9)}
    assert len(orders) > 3  # the right one is often the first in the file
    assert read(tmp_path / "task.json", seed=3) == read(tmp_path / "task.json", seed=3)
    hidden = {**CHOICE, "append_choices_to_input": False}
    assert read(put(tmp_path, hidden))[0].instruction == "Q: The sky?\nA:"
    prefixed = {**CHOICE, "choice_prefix": "\n* "}
    assert "\n* blue" in read(put(tmp_path, prefixed))[0].instruction


def test_a_folder_of_subtasks_is_walked_and_programs_are_reported(tmp_path):
    root = tmp_path / "arithmetic"
    put(root / "one_digit", {**GENERATION, "name": "one_digit"})
    put(root / "two_digits", {key: GENERATION[key] for key in ("examples",)})
    (root / "program").mkdir()
    (root / "program" / "task.py").write_text("")
    put(root / "empty", {"name": "empty", "examples": []})
    problems = Problems()
    assert [instance.task for instance in read(root, problems)] == ["arithmetic:one_digit", "arithmetic:two_digits"]
    assert sorted(problems.listed) == [
        (str(root / "empty" / "task.json"), "the task has no JSON examples"),
        (str(root / "program"), "the task is a program (task.py), without JSON examples"),
    ]
    root.rename(tmp_path / "benchmark_tasks")
    assert {i.task for i in read(tmp_path / "benchmark_tasks", Problems())} == {"one_digit", "two_digits"}
    assert sniff(tmp_path) == "bigbench"


def test_a_folder_with_a_program_alone_is_a_problem(tmp_path):
    (tmp_path / "task.py").write_text("")
    problems = Problems()
    assert read(tmp_path, problems) == []
    assert "is a program" in problems.listed[0][1]
    nothing = Problems()
    (tmp_path / "nothing").mkdir()
    assert read(tmp_path / "nothing", nothing) == []
    assert "no task.json" in nothing.listed[0][1]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("x", "an example has 'input'"),
        ({"input": ["x"], "target": "y"}, "an example has 'input'"),
        ({"input": "x"}, "no target"),
        ({"input": "x", "target": None}, "no target"),
        ({"input": "x", "target": [1]}, "references"),
        ({"input": "x", "target_scores": {}}, "'target_scores' holds"),
        ({"input": "x", "target_scores": {"a": "1"}}, "'target_scores' holds"),
        ({"input": "x", "target_scores": {"a": 0, "b": 0}}, "no choice has a score above 0"),
    ],
)
def test_bad_examples_are_reported_by_file_and_number(tmp_path, example, message):
    file = put(tmp_path, {"name": "t", "examples": [example, {"input": "good", "target": "g"}]})
    problems = Problems()
    assert [instance.id for instance in read(file, problems)] == ["t|#2"]
    ((where, said),) = problems.listed
    assert where == f"{file}:1"
    assert message in said
    with pytest.raises(InputError, match=r"task.json:1"):
        read(file, Problems(strict=True))


def test_a_file_that_is_no_task_says_so(tmp_path):
    for content in ("{", "[]", '{"examples": 3}'):
        (tmp_path / "task.json").write_text(content)
        with pytest.raises(InputError, match=r"task\.json"):
            read(tmp_path / "task.json")
        problems = Problems()
        assert read(tmp_path, problems) == []
        assert problems.count == 1


ROWS = [
    {
        "idx": 0,
        "inputs": "Q: The sky?\n  choice: red\n  choice: blue\nA: ",
        "targets": ["blue"],
        "multiple_choice_targets": ["red", "blue"],
        "multiple_choice_scores": [0, 1],
    },
    {
        "idx": 7,
        "inputs": "1+1",
        "targets": ["2", "two"],
        "multiple_choice_targets": [],
        "multiple_choice_scores": [],
    },
]


def test_rows_of_the_hub(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "validation.parquet")
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name in ("validation.parquet", "validation.jsonl"):
        assert sniff(tmp_path / name) == "bigbench"
        choice, generation = read(tmp_path / name, task="sky")
        assert choice.instruction == "Q: The sky?\n  choice: red\n  choice: blue\nA:"
        assert (choice.references, choice.choices) == (("blue",), ("red", "blue"))
        assert (generation.references, generation.choices) == (("2", "two"), None)
        assert generation.id == "sky|validation|#7"


def test_bad_rows_are_reported_by_line(tmp_path):
    short = {**ROWS[0], "multiple_choice_scores": [1]}
    rows = [{"inputs": 1}, short, {**ROWS[1], "targets": []}, ROWS[1]]
    (tmp_path / "v.jsonl").write_text("{\n" + "".join(json.dumps(row) + "\n" for row in rows))
    problems = Problems()
    assert len(read(tmp_path / "v.jsonl", problems)) == 1
    assert [where.rpartition(":")[2] for where, _ in problems.listed] == ["1", "2", "3", "4"]
    assert [message for _, message in problems.listed][2:] == ["2 choices and not as many scores: [1]", "no target"]

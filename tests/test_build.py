"""What pairs are made of what."""

from __future__ import annotations

import os
import subprocess
from itertools import chain

import pytest
from tasks import COMMAND, counted, open_ended, rows_of, write

from cappy_select.core.errors import InputError
from cappy_select.data.build import BuildConfig, build
from cappy_select.data.store import SampleStore

# ------------------------------------------------------------------------------------------------- what is made


def test_the_counts_follow_from_the_input(tasks, tmp_path):
    manifest = build([tasks], tmp_path / "out", config={"validation": 0})
    rows = rows_of(tmp_path / "out")
    assert counted(rows, "task", "kind") == {
        ("colors", "gold"): 40,
        ("colors", "mismatch"): 40 * 3,  # every wrong choice
        ("facts", "gold"): 60,
        ("facts", "mismatch"): 60,  # one other reference for each
    }
    assert {row["score"] for row in rows if row["kind"] == "gold"} == {1.0}
    assert {row["score"] for row in rows if row["kind"] == "mismatch"} == {0.0}
    assert manifest["rows"]["train"]["rows"] == len(rows) == 280
    assert manifest["rows"]["train"]["tasks"] == {
        "colors": {"gold": 40, "mismatch": 120}, "facts": {"gold": 60, "mismatch": 60}
    }  # fmt: skip
    assert manifest["rows"]["train"]["scores"][0] == 180
    assert manifest["rows"]["train"]["scores"][-1] == 100
    assert manifest["instances"] == {
        "read": 100, "left_out": 0, "contaminated": {"by_file": [], "ids": []}, "same_instruction": 0,
        "evaluation_rows_left_out": 0, "held_out_elsewhere": 0,
        "without_pairs": 0,
    }  # fmt: skip


def test_a_wrong_answer_is_a_reference_of_another_question_of_the_task_and_never_a_right_one(tmp_path):
    same = [open_ended(number, references=["Yes."]) for number in range(10)]  # nothing else to be had
    two = [
        open_ended(number, "twos", references=[f"  ANSWER {number % 2} ", f"answer {number % 2}"])
        for number in range(10)
    ]
    build([write(tmp_path / "t.jsonl", same + two)], tmp_path / "out", config={"validation": 0})
    wrong = [row for row in rows_of(tmp_path / "out") if row["kind"] == "mismatch"]
    assert {row["task"] for row in wrong} == {"twos"}
    for row in wrong:
        own = int(row["group"].split("#")[1]) % 2
        assert row["response"].strip().lower() == f"answer {1 - own}"


def test_few_questions_in_a_partition_still_find_wrong_answers(tmp_path):
    file = write(tmp_path / "t.jsonl", [open_ended(number) for number in range(8)])
    build([file], tmp_path / "out", config={"validation": 0, "partitions": 64})
    assert counted(rows_of(tmp_path / "out"), "kind") == {("gold",): 8, ("mismatch",): 8}


def test_the_same_instruction_is_one_question_with_all_that_is_known(tmp_path):
    rows = [
        open_ended(1, id="a", references=["one", "uno"]),
        open_ended(1, id="b", references=["one", "eins"], negatives=["two"]),
        open_ended(1, "other", id="c", references=["one"]),
        open_ended(2, references=["two!"]),
    ]
    manifest = build([write(tmp_path / "t.jsonl", rows)], tmp_path / "out", config={"validation": 0, "mismatches": 0})
    facts = [row for row in rows_of(tmp_path / "out") if row["group"] == "a"]
    assert sorted((row["response"], row["score"]) for row in facts) == [
        ("eins", 1.0), ("one", 1.0), ("two", 0.0), ("uno", 1.0)
    ]  # fmt: skip
    assert manifest["instances"]["same_instruction"] == 1


def test_an_instruction_or_a_group_is_never_on_both_sides(tmp_path):
    rows = [open_ended(number, group=f"g{number // 3}") for number in range(300)]
    rows += [open_ended(number, "plain", id=f"{copy}") for number in range(100) for copy in range(2)]
    build([write(tmp_path / "t.jsonl", rows)], tmp_path / "out", config={"validation": 0.3})
    sides = [rows_of(tmp_path / "out", side) for side in ("train", "validation")]
    asked = [{row["instruction"] for row in side} for side in sides]
    assert not asked[0] & asked[1]
    groups = [{int(row["group"].split("#")[1]) // 3 for row in side if row["task"] == "facts"} for side in sides]
    assert not groups[0] & groups[1]
    assert 15 <= len(groups[1]) <= 45  # of 100
    for task in ("facts", "plain"):  # what is taken for a wrong answer is a reference of training questions
        wrong = {row["response"] for row in chain(*sides) if row["kind"] == "mismatch" and row["task"] == task}
        assert not wrong & {row["response"] for row in sides[1] if row["kind"] == "gold" and row["task"] == task}


def test_what_is_held_out_in_one_place_is_not_trained_on_in_another(tmp_path):
    def asked(task, number, **more):
        return open_ended(number, task, instruction=f"Question {number}?", **more)

    rows = [asked(task, number, group=f"{task}{number}") for task in "ab" for number in range(60)]
    rows += [open_ended(number, f"own{task}", group=f"{task}{number}") for task in "ab" for number in range(60)]
    rows += [asked("c", number, split="test") for number in range(20)]
    manifest = build([write(tmp_path / "t.jsonl", rows)], tmp_path / "out", config={"validation": 0.3})
    sides = [rows_of(tmp_path / "out", side) for side in ("train", "validation")]
    assert not {row["instruction"] for row in sides[0]} & {row["instruction"] for row in sides[1]}
    assert {row["instruction"] for row in sides[1]} >= {f"Question {number}?" for number in range(20)}
    asked_in = [{(row["task"], row["instruction"]) for row in side} for side in sides]
    groups = [{row.get("group") for row in rows if (row["task"], row["instruction"]) in side} for side in asked_in]
    assert not groups[0] & groups[1]
    assert manifest["instances"]["held_out_elsewhere"] == len(rows) - len(asked_in[0]) - len(asked_in[1])


def test_a_group_that_its_data_set_holds_out_a_part_of_is_held_out(tmp_path):
    rows = [open_ended(number, group=f"g{number // 2}", split=["train", "test"][number % 2]) for number in range(20)]
    rows += [open_ended(number, "more", group=f"h{number}") for number in range(20)]
    manifest = build([write(tmp_path / "t.jsonl", rows)], tmp_path / "out", config={"validation": 0, "partitions": 5})
    assert manifest["instances"]["held_out_elsewhere"] == 10
    assert {row["task"] for row in rows_of(tmp_path / "out")} == {"more"}


def test_what_answers_a_held_out_question_is_no_wrong_answer_in_training(tmp_path):
    rows = [open_ended(number) for number in range(30)]
    rows += [open_ended(99, references=["SECRET"], split=split) for split in ("test", "train")]
    build([write(tmp_path / "t.jsonl", rows)], tmp_path / "out", config={"validation": 0, "partitions": 3})
    assert "SECRET" not in {row["response"] for row in rows_of(tmp_path / "out")}
    assert "SECRET" in {row["response"] for row in rows_of(tmp_path / "out", "validation")}


def test_what_its_data_set_holds_out_is_held_out(tmp_path):
    rows = [open_ended(number, split="train" if number % 2 else "validation") for number in range(20)]
    build([write(tmp_path / "t.jsonl", rows)], tmp_path / "out", config={"validation": 0})
    numbers = {int(row["group"].split("#")[1]) % 2 for row in rows_of(tmp_path / "out", "validation")}
    assert numbers == {0}


def test_what_stands_in_an_evaluation_file_is_left_out(tmp_path):
    words = " ".join(f"word{number}" for number in range(20))
    template = "the same template in every one of them " * 3
    rows = [open_ended(1)]
    rows += [open_ended(2, instruction=f"Before. {words} After."), open_ended(3, instruction="Short one?")]
    rows += [open_ended(number, instruction=f"{number}: {template}") for number in range(10, 30)]
    evaluation = [
        {"id": "e1", "task": "e", "instruction": f"Quite another start, {words.upper()}!", "references": []},
        {"id": "e2", "task": "e", "instruction": "short ONE", "references": []},
    ]
    evaluation += [
        {"id": str(number), "task": "e", "instruction": f"e{number}: {template}", "references": []}
        for number in range(20)
    ]
    manifest = build(
        [write(tmp_path / "t.jsonl", rows)],
        tmp_path / "out",
        config={"validation": 0},
        against=[write(tmp_path / "e.jsonl", evaluation)],
    )
    assert manifest["instances"]["contaminated"] == {"by_file": [2], "ids": ["facts#2", "facts#3"]}
    left = {row["group"] for row in rows_of(tmp_path / "out")}
    assert "facts#1" in left
    assert not left & {"facts#2", "facts#3"}
    assert len(left) == 21  # wording that many share is a template, not a leak


# ------------------------------------------------------------------------------------------------------ samples


def test_samples_are_labelled_and_each_response_stands_once(tasks, store, tmp_path):
    manifest = build([tasks], tmp_path / "out", config={"validation": 0}, recorded=[store])
    rows = rows_of(tmp_path / "out")
    assert counted(rows, "task", "kind") == {
        ("colors", "gold"): 40, ("colors", "mismatch"): 120, ("colors", "labelled"): 40,
        ("facts", "gold"): 60, ("facts", "mismatch"): 60, ("facts", "labelled"): 60, ("facts", "augmented"): 120,
    }  # fmt: skip
    assert max(counted(rows, "task", "instruction", "response").values()) == 1
    fact = {row["response"]: row["score"] for row in rows if row["group"] == "facts#5"}
    assert fact["The number stands after."] == pytest.approx(2 * (4 / 4) * (4 / 6) / (4 / 4 + 4 / 6))
    assert (fact[""], fact["Nothing."]) == (0.0, 1.0)
    assert (manifest["samples"]["stored"], manifest["samples"]["used"]) == (500, 500)


def test_to_adapt_all_samples_count_and_each_task_is_repeated_or_cut(tasks, store, tmp_path):
    build([tasks], tmp_path / "all", config={"mode": "adapt", "validation": 0, "rows": 580}, recorded=[store])
    assert counted(rows_of(tmp_path / "all"), "kind")["augmented",] == 2 * 40 + 2 * 60
    config = {"mode": "adapt", "validation": 0, "rows_per_task": 700}
    manifest = build([tasks], tmp_path / "out", config=config, recorded=[store])
    rows = rows_of(tmp_path / "out")
    assert counted(rows, "task") == {("colors",): 700, ("facts",): 700}
    assert manifest["available"] == {"colors": 280, "facts": 300}
    repeats = counted(rows, "task", "instruction", "response")
    assert set(repeats.values()) == {2, 3}
    assert BuildConfig(mode="adapt").each_task == 102_400


def test_recorded_samples_are_taken_as_they_are(tmp_path):
    row = open_ended(1, candidates=[{"model": "x", "response": "The number 1 stands.", "correct": False}])
    file = write(tmp_path / "recorded.jsonl", [row, open_ended(2), '{"id": 1}'])
    manifest = build([file], tmp_path / "out", config={"validation": 0}, recorded=[file])
    assert counted(rows_of(tmp_path / "out"), "kind", "score")["labelled", 0.0] == 1
    assert manifest["samples"] == {
        "stored": 1, "used": 1, "rows_left_out": 2, "unlabelled": 0, "questions_without_scorable_reference": 0
    }  # fmt: skip


def test_a_judges_marks_are_labels_and_what_it_has_not_marked_is_left_out(tasks, store, tmp_path):
    with SampleStore(store, write=True) as opened:
        (first, samples), *_ = opened.instances()
        for stored in samples:
            opened.add_judgement(stored.number, "gpt", 0.7, cost=0.0)
    config = {"mode": "adapt", "label": "judge:gpt", "validation": 0, "rows": 300}
    manifest = build([tasks], tmp_path / "out", config=config, recorded=[store])
    assert manifest["samples"]["unlabelled"] == 99 * 2
    augmented = [row for row in rows_of(tmp_path / "out") if row["kind"] == "augmented"]
    assert {(row["group"], round(row["score"], 6)) for row in augmented} == {(first.id, 0.7)}


def test_a_reference_that_the_label_can_not_score_is_told(tmp_path):
    row = open_ended(1, references=["नदी"], candidates=[{"model": "x", "response": "नदी है"}])
    file = write(tmp_path / "hindi.jsonl", [row])
    manifest = build([file], tmp_path / "out", config={"validation": 0}, recorded=[file])
    assert manifest["samples"]["questions_without_scorable_reference"] == 1
    manifest = build([file], tmp_path / "two", config={"validation": 0, "label": "rouge_l_unicode"}, recorded=[file])
    assert manifest["samples"]["questions_without_scorable_reference"] == 0
    assert [row["score"] for row in rows_of(tmp_path / "two") if row["kind"] == "augmented"] == [pytest.approx(2 / 3)]


def test_samples_that_belong_to_no_instance_are_told(store, tmp_path):
    renamed = write(tmp_path / "renamed.jsonl", [open_ended(number, "tickets") for number in range(4)])
    manifest = build([renamed], tmp_path / "out", recorded=[store])
    assert (manifest["samples"]["stored"], manifest["samples"]["used"]) == (500, 0)


def test_an_evaluation_file_without_an_instruction_is_an_error(tasks, tmp_path):
    file = write(tmp_path / "e.jsonl", [{"question": "Which?", "references": None}])
    with pytest.raises(InputError, match=r"e.jsonl has no instruction"):
        build([tasks], tmp_path / "out", against=[file])
    rows = [{"question": "Which?", "references": ["x"]}, {"question": "Who?", "references": ["y"]}]
    renamed, fields = write(tmp_path / "t.jsonl", rows), {"instruction": "question"}
    ours = write(tmp_path / "ours.jsonl", [{"id": "1", "instruction": "WHO?"}])
    manifest = build([renamed, tasks], tmp_path / "two", against=[file, ours], fields=fields)
    assert manifest["instances"]["contaminated"]["by_file"] == [1, 1]


def test_a_function_that_changed_is_another_label(tmp_path):
    row = open_ended(1, candidates=[{"model": "x", "response": "Something."}])
    file = write(tmp_path / "t.jsonl", [row])
    command = [*COMMAND, file, "--recorded", file, "--label", "call:taste:score", "--validation", "0"]
    command += ["--out", tmp_path / "out"]

    def run(body, *more):
        (tmp_path / "taste.py").write_text(f"def score(response, references):\n    {body}\n")
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run([*command, *more], env=environment, capture_output=True, text=True)

    assert run("return 0.25").returncode == 0
    assert "made in another way" in run("return 0.75").stderr
    failed = run("raise KeyError('salt')", "--overwrite")
    assert failed.returncode == 2
    assert "call:taste:score failed on 'Something.': KeyError: 'salt'" in failed.stderr


# ------------------------------------------------------------------------------------------------------ mixture


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"cap": 100}, {"colors": 100, "facts": 100}),
        ({"rows": 140}, {"colors": 80, "facts": 60}),
        ({"rows": 560}, {"colors": 320, "facts": 240}),
        ({"mixture": "equal"}, {"colors": 140, "facts": 140}),
        ({"mixture": {"facts": 1.0}, "rows": 90}, {"facts": 90}),
        ({"mixture": {"facts": 1.0, "colors": 3.0}, "rows": 80}, {"colors": 60, "facts": 20}),
    ],
)
def test_the_mixture_is_what_was_asked_for(tasks, tmp_path, config, expected):
    build([tasks], tmp_path / "out", config=config | {"validation": 0, "partitions": 7})
    assert {task: count for (task,), count in counted(rows_of(tmp_path / "out"), "task").items()} == expected


def test_a_cut_takes_whole_questions(tasks, tmp_path):
    build([tasks], tmp_path / "out", config={"rows": 100, "validation": 0, "mixture": {"colors": 1}, "partitions": 1})
    sizes = counted(rows_of(tmp_path / "out"), "instruction").values()
    assert sorted(sizes) == [4] * 25

"""recipes/made_tasks, run as people run it, on a few rows in T0's format."""

import gzip
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "recipes" / "made_tasks"
LETTERS = "ABCD"
NEWS = """Ann Miller opened the bakery in 1987 because her town had none. The mayor, a friend of hers, bought the \
first loaf himself. Later the bakery moved to a larger house in the High Street of Norwich. In 2004 Peter Stone became \
its second baker, so the shop could open on Sundays as well. Tom Hardy wrote a story about the bakery after his visit \
in {year}. His story was read in many schools and brought the bakery new guests. Peter Stone will retire next year \
and wants to travel with Ann Miller to Lisbon."""


def t0_rows():
    for number in range(12):
        text = NEWS.format(year=1990 + number) + f" Story number {number} ends here, as Ann Miller said to Peter Stone."
        common = {"template": "t", "split": "train", "choices": None}
        yield common | {
            "id": f"news-{number}", "task": "xsum", "instruction": f"{text}\nSummarise it.",
            "references": [f"Peter Stone was the second baker of the bakery Ann Miller opened in {1970 + number}."],
        }  # fmt: skip
        yield common | {
            "id": f"asked-{number}", "task": "adversarial_qa-dbert",
            "instruction": f"Who wrote a story about the bakery?\n{text}", "references": ["Tom Hardy"],
        }  # fmt: skip
        texts = [f"a town in the {way} {number}" for way in ("north", "south", "east", "west")]
        listed = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=True))
        yield common | {
            "id": f"race-{number}", "task": "race-high", "choices": list(LETTERS), "references": [LETTERS[number % 4]],
            "instruction": f"{text}\nWhere is it?\n{listed}\nThe letter is",
        }  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with gzip.open(folder / "t0.jsonl.gz", "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in t0_rows())

    def run(out):
        subprocess.run(
            [sys.executable, SCRIPT, folder / "t0.jsonl.gz", "--out", folder / out], check=True, capture_output=True
        )
        return folder / out

    return run("once"), run("again")


@pytest.fixture(scope="module")
def instances(made):
    found = defaultdict(list)
    for line in (made[0] / "instances.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found[row.get("template", row["task"])].append(row)
    return found


def test_the_same_rows_make_the_same_tasks(made):
    once, again = made
    for name in ("instances.jsonl", "samples.jsonl"):
        assert (once / name).read_bytes() == (again / name).read_bytes()


def test_all_kinds_are_made_and_their_answers_are_among_the_choices(instances):
    kinds = {"follows", "embedded", "verified", "goes_on", "because", "blanks", "senses", "distracted", "reordered"}
    assert kinds == set(instances)
    for kind in kinds - {"distracted"}:
        for row in instances[kind]:
            assert len(row["references"]) == 1
            assert row["references"][0] in row["choices"]
            assert len(set(row["choices"])) == len(row["choices"])


def test_a_clause_gets_the_answer_of_what_it_stands_under(instances):
    said = [row for row in instances["embedded"] if "It is not true that" in row["instruction"]]
    positive = [row for row in said if " not " not in row["instruction"].replace("It is not true", "")]
    negative = {"No", "False", "Never", "Incorrect", "Impossible"}
    assert positive
    assert all(row["references"][0] in negative for row in positive)


def test_a_false_statement_is_not_the_true_one(instances):
    wrong = [row for row in instances["distracted"] if row["task"] == "xsum"]
    assert wrong
    assert all(row["negatives"] and row["references"][0] not in row["negatives"] for row in wrong)


def test_wrong_answers_stand_in_the_passage(instances):
    wrong = [row for row in instances["distracted"] if row["task"].startswith("adversarial_qa")]
    assert wrong
    for row in wrong:
        assert row["references"] == ["Tom Hardy"]
        assert row["negatives"]
        assert all(each in row["instruction"] and each != "Tom Hardy" for each in row["negatives"])


def test_choices_in_another_order_keep_the_right_text(instances):
    def answered(row):
        [line] = [line for line in row["instruction"].split("\n") if line.startswith(f"{row['references'][0]}. ")]
        return line[3:]

    before = {row["id"]: row for row in t0_rows() if row["choices"]}
    assert instances["reordered"]
    for row in instances["reordered"]:
        original = before[row["id"].partition("-reordered")[0]]
        assert row["instruction"] != original["instruction"]
        assert answered(row) == answered(original)


def test_spoiled_references_belong_to_their_questions(made):
    rows = [json.loads(line) for line in (made[0] / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows
    for row in rows:
        short, padded = (each["response"] for each in row["candidates"])
        assert row["references"][0].startswith(short)
        assert padded != row["references"][0]


def test_a_missing_file_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "none.jsonl", "--out", tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "none.jsonl" in done.stderr
    assert not (tmp_path / "out").exists()

"""recipes/made_tasks, run as people run it, on a few rows in T0's format."""

import gzip
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "recipes" / "made_tasks"
LETTERS = "ABCD"
YES = {"Yes", "True", "Correct", "Always", "Guaranteed"}
NO = {"No", "False", "Incorrect", "Never", "Impossible"}
MAYBE = {"Maybe", "Neither", "Inconclusive", "Sometimes", "Possible"}
NEWS = """Ann Miller opened the bakery in 1987 because her town had none. The mayor, a friend of hers, bought the \
first loaf himself. Later the bakery moved to a larger house in the High Street of Norwich. In 2004 Peter Stone became \
its second baker, so the shop could open on Sundays as well. Tom Hardy wrote a story about the bakery after his visit \
in {year}. His story was read in many schools and brought the bakery new guests. Peter Stone will retire next year \
and wants to travel with Ann Miller to Lisbon."""


TEMPLATE = "The story below was written for the pupils of our school: please say in one sentence what it tells."


def t0_rows():
    for number in range(12):
        text = NEWS.format(year=1990 + number) + f" Story number {number} ends here, as Ann Miller said to Peter Stone."
        common = {"template": "t", "split": "train", "choices": None}
        yield common | {
            "id": f"news-{number}", "task": "xsum", "instruction": f"{TEMPLATE}\n{text}",
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
        made = row["task"].removeprefix("made_")
        kind = "distracted" if "negatives" in row else "reordered" if "-reordered-" in row["id"] else made
        found[kind].append(row)
    return found


def test_the_same_rows_make_the_same_tasks(made):
    once, again = made
    for name in ("instances.jsonl", "samples.jsonl"):
        assert (once / name).read_bytes() == (again / name).read_bytes()


def test_all_kinds_are_made_and_their_answers_are_among_the_choices(instances):
    kinds = {"follows", "answered", "verified", "clauses", "goes_on", "because", "blanks", "distracted", "reordered"}
    assert kinds == set(instances)
    for kind in kinds - {"distracted"}:
        for row in instances[kind]:
            assert len(row["references"]) == 1
            assert row["references"][0] in row["choices"]
            assert len(set(row["choices"])) == len(row["choices"])


def test_an_answer_is_right_when_it_is_the_reference(instances):
    assert {row["references"][0] in YES for row in instances["verified"]} == {True, False}
    for row in instances["verified"]:
        assert (row["references"][0] in YES) == ("Tom Hardy" in row["instruction"].split("Tom Hardy wrote")[1])


def test_a_question_and_its_answer_are_one_statement(instances):
    said = {True: set(), False: set()}
    for row in instances["answered"]:
        [claim] = re.findall(r"([A-Z]\w+(?: [A-Z]\w+)*) wrote a story about the bakery(?! after)", row["instruction"])
        said[row["references"][0] in YES].add(claim)
    assert said[True] == {"Tom Hardy"}
    assert said[False]
    assert "Tom Hardy" not in said[False]


def test_a_clause_holds_as_what_stands_before_it_says(tmp_path):
    told = (
        "The mayor knew that the house was too small.", "Ann did not think that the house was too small.",
        "Peter asked whether the house was too small.", "If the house was too small, Ann would have moved.",
        "There is no doubt that the house was too small.", "It is not a fact that the house was too small.",
        "He acted as if the house was too small.",
    )  # fmt: skip
    with (tmp_path / "rows.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(420):
            text = f"{NEWS.format(year=1900 + number)} {told[number % len(told)]}"
            lines.write(json.dumps({"task": "imdb", "instruction": text, "references": [], "choices": None}) + "\n")
    subprocess.run([sys.executable, SCRIPT, tmp_path / "rows.jsonl", "--out", tmp_path], check=True)
    rows = [json.loads(line) for line in (tmp_path / "instances.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [row for row in rows if row["task"] == "made_clauses" and len(row["choices"]) == 3]
    seen = set()
    for row in asked:
        premise, turned = row["instruction"], "house was not too small" in row["instruction"]
        for before, answers, others in (
            ("(mayor|Mary|John|man|doctor) (knew|realised|found out|noticed|remembered|learned) that", YES, NO),
            ("(did not think|doubted|pretended|lied) that", NO, YES),
            ("Peter asked whether|It is possible that|[.] If", MAYBE, set()),
        ):
            if re.search(f"({before}) the house was too small", premise):
                assert row["references"][0] in (others if turned else answers)
                seen.add((before[:5], turned))
    assert len(seen) == 5  # of what may be is nothing turned round
    assert not [row for row in asked if re.search("no doubt that|not a fact that|acted as if the", row["instruction"])]


def test_the_next_sentence_is_the_one_that_comes_next(instances):
    continued = [row for row in instances["goes_on"] if row["instruction"].startswith("Continue: ")]
    assert continued
    for row in continued:
        joined = f"{row['instruction'].removeprefix('Continue: ')} {row['references'][0]}"
        assert any(joined in text["instruction"] for text in t0_rows())


def test_a_cause_is_the_clause_behind_because(instances):
    causes = [row for row in instances["because"] if "because her town" not in row["instruction"]]
    assert causes
    assert {row["references"][0] for row in causes} <= {
        "Her town had none.", "Ann Miller opened the bakery in 1987.",
        "The shop could open on Sundays as well.", "In 2004 Peter Stone became its second baker.",
    }  # fmt: skip


LAKE = """The monks of Sevanavank built two churches on an island of the lake in the ninth century. Fish are caught \
there from boats all the year. Two churches stand near the shore of another lake in the south. Its island became a \
peninsula when the water fell. Cars bring visitors from the capital of Armenia, who swim in summer."""
MILL = """Wool was spun in the mill below the dam. Its wheel was driven by a brook that dries up in August. Nobody saw \
when the roof came down, though the noise woke a whole street. Owls nest in the chimney now and hunt at night."""
WHO, WHENCE, WHAT = "Who built two churches on an island?", "From which capital do visitors come?", "What woke people?"
LIKEST = {"Two churches", "Its island"}  # sentences of the lake's, but the one that answers WHO


@pytest.fixture(scope="module")
def about_passages(tmp_path_factory):
    asked = [
        ("adversarial_qa-dbert", f"{WHO}\n{LAKE}", "monks of Sevanavank"),
        ("adversarial_qa-dbert", f'{WHENCE}\nContext: "{LAKE}"', "capital of Armenia"),  # of the same passage
        ("squad_v2", f"Who drained the lake of Sevanavank?\n{LAKE}", "unanswerable"),
        ("quoref", f"What was the mill of the churches driven by?\n{MILL}", "a brook"),
        ("adversarial_qa-dbidaf", f"{WHAT}\n{MILL}", "the noise"),
        ("adversarial_qa-dbidaf", f"Helens Volcano, where?\n{MILL}", "below the dam"),
    ]
    rows = [
        {"task": task, "instruction": told, "references": [answer], "choices": None}
        for task, told, answer in asked
        for _ in range(12)  # so that each wording turns up
    ]
    folder = tmp_path_factory.mktemp("passages")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    subprocess.run([sys.executable, SCRIPT, folder / "rows.jsonl", "--out", folder], check=True, capture_output=True)
    found = defaultdict(list)
    for line in (folder / "instances.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found[row["task"].removeprefix("made_")].append(row)
    return found


def test_a_text_goes_with_questions_that_it_answers(about_passages):
    seen = {(row["references"][0], *row["negatives"]) for row in about_passages["asked_of"]}
    assert {question for question, *_ in seen} >= {WHO, WHENCE}
    mill = "What was the mill of the churches driven by?"
    assert all(wrong == [mill] for question, *wrong in seen if question in {WHO, WHENCE})  # not each other, nor WHAT
    assert "Who drained the lake of Sevanavank?" not in {question for question, *_ in seen}


def test_a_question_goes_with_the_passage_that_answers_it(about_passages):
    right = {row["references"][0] for row in about_passages["asked_here"] if row["references"]}
    assert WHO in right
    for row in about_passages["asked_here"]:
        [question] = row["references"] or row["negatives"]
        if question == WHO:
            assert ("monks" in row["instruction"]) == bool(row["references"])
            assert row["references"] or any(each in row["instruction"] for each in LIKEST)


def test_a_sentence_of_the_text_answers_its_question(about_passages):
    told = [row for row in about_passages["told_in"] if WHO in row["instruction"]]
    assert len({row["instruction"] for row in told}) > 3
    for row in told:
        assert "monks" in row["references"][0]
        assert {" ".join(each.split()[:2]) for each in row["negatives"]} == LIKEST


def test_whether_a_passage_answers_and_which_one(about_passages):
    seen = set()
    for row in about_passages["answers_it"]:
        asked, [right] = row["instruction"], row["references"]
        seen.add(right)
        if WHO in asked and row["choices"] == ["A", "B"]:
            first, second = asked.partition("\nA) ")[2].split("\nB) ")
            assert right == ("A" if "monks" in first else "B")
            assert ("monks" in first) != ("monks" in second)
        elif WHO in asked:
            assert (right == "Yes") == ("monks" in asked)
    assert seen == {"Yes", "No", "A", "B"}


def test_a_gap_is_filled_by_the_name_that_stood_there(instances):
    gaps = [row for row in instances["blanks"] if "_" in row["instruction"]]
    assert gaps
    for row in gaps:
        [sentence] = [line for line in row["instruction"].removeprefix("Complete: ").split("\n") if "_" in line][:1]
        filled = sentence.removesuffix(f"\nIs _ {row['choices'][0]}").replace("_", row["references"][0])
        assert any(filled in text["instruction"] for text in t0_rows())


def test_a_line_of_the_template_is_no_text(instances):
    made = [row for kind in ("follows", "goes_on", "because", "blanks") for row in instances[kind]]
    assert not [row for row in made if "written for the pupils of our school" in row["instruction"]]


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


def test_choices_of_which_one_ends_another_are_told_apart(tmp_path):
    asked = "Which is it?\n- cat\n- bobcat\n- dog"
    row = {"task": "sciq", "instruction": asked, "references": ["bobcat"], "choices": ["cat", "bobcat", "dog"]}
    text = {"task": "imdb", "instruction": NEWS, "references": [], "choices": None}
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in (*[row] * 5, text)), encoding="utf-8")
    subprocess.run([sys.executable, SCRIPT, file, "--out", tmp_path], check=True, capture_output=True)
    rows = [json.loads(line) for line in (tmp_path / "instances.jsonl").read_text(encoding="utf-8").splitlines()]
    others = [row for row in rows if "-reordered-" in row["id"]]
    assert others
    for other in others:
        assert other["references"] == ["bobcat"]
        assert sorted(other["instruction"].split("\n")) == sorted(asked.split("\n"))


def test_spoiled_references_are_shortened_or_astray(made):
    rows = [json.loads(line) for line in (made[0] / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows
    for row in rows:
        short, strayed = (each["response"] for each in row["candidates"])
        assert row["references"][0].startswith(short)
        assert len(short) < len(row["references"][0])
        added = strayed.removeprefix(row["references"][0]).removeprefix(short).strip()
        assert any(added in each["instruction"] for each in t0_rows())


@pytest.mark.parametrize(
    "content", [None, "", "{", '{"instruction": "Is this a task of T0?", "references": ["no"]}', "[1]"]
)
def test_a_file_that_can_not_be_used_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "rows.jsonl").write_text(content, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "rows.jsonl", "--out", tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "rows.jsonl" in done.stderr
    assert not (tmp_path / "out").exists()

from __future__ import annotations

import json

import pytest

from cappy_select import InputError
from cappy_select.data.formats import Problems
from cappy_select.data.readers import sniff
from cappy_select.data.readers.natural_instructions import read_natural_instructions

TASK = {
    "Contributors": ["A"],
    "Definition": ["Add the numbers."],
    "Positive Examples": [
        {"input": "1+1", "output": "2", "explanation": "One and one."},
        {"input": "2+2", "output": "4", "explanation": ""},
        {"input": "3+3", "output": "6", "explanation": "Three twice."},
    ],
    "Negative Examples": [{"input": "4+4", "output": "9", "explanation": "It is 8."}],
    "Instances": [
        {"id": "task001-a", "input": "5+5", "output": ["10", "ten"]},
        {"input": "1+1", "output": "2"},
    ],
}


def write(folder, task, name="task001_addition.json"):
    file = folder / name
    file.write_text(task if isinstance(task, str) else json.dumps(task))
    return file


def read(source, problems=None, **options):
    return [one for _, one in read_natural_instructions(source, problems or Problems(strict=True), **options)]


def test_a_task_is_its_definition_two_positive_examples_and_the_input(tmp_path):
    first, second, negative = read(write(tmp_path, TASK))
    assert first.instruction == (
        "Definition: Add the numbers.\n\n"
        "Positive Example 1 -\nInput: 1+1\nOutput: 2\nExplanation: One and one.\n\n"
        "Positive Example 2 -\nInput: 2+2\nOutput: 4\n\n"
        "Now complete the following example -\nInput: 5+5\nOutput:"
    )
    assert (first.id, first.task, first.references) == ("task001-a", "task001_addition", ("10", "ten"))
    assert (second.id, second.references) == ("task001_addition|#2", ("2",))
    assert negative.references == ()
    assert negative.negatives == ("9",)
    assert negative.id == "task001_addition|#negative-1"
    assert negative.instruction.endswith("Input: 4+4\nOutput:")
    assert "9" not in negative.instruction


def test_an_example_never_answers_its_own_input(tmp_path):
    second = read(write(tmp_path, TASK))[1]
    assert "Input: 1+1\nOutput: 2" not in second.instruction
    assert "Positive Example 2 -\nInput: 3+3\nOutput: 6" in second.instruction  # the next one stands in
    leaky = {**TASK, "Negative Examples": [{"input": "2+2 ", "output": "5"}]}
    assert "Output: 4" not in read(write(tmp_path, leaky))[-1].instruction


def test_shots(tmp_path):
    file = write(tmp_path, TASK)
    assert read(file, shots=0)[0].instruction.startswith("Definition: Add the numbers.\n\nNow complete")
    assert "Positive Example 3" in read(file, shots=9)[0].instruction


def test_the_files_of_2021_are_read_too(tmp_path):
    older = {
        "Title": "Addition",
        "Prompt": "Add",
        "Definition": "Add the numbers.",
        "Things to Avoid": "-",
        "Emphasis & Caution": "-",
        "Examples": {
            "Positive Examples": [{"input": "1+1", "output": "2", "reason": "One and one.", "suggestion": "-"}],
            "Negative Examples": ["-"],
        },
        "Instances": [{"input": "5+5", "output": ["10"]}],
    }
    (only,) = read(write(tmp_path, older))
    assert "Output: 2\nExplanation: One and one." in only.instruction
    older["Examples"]["Negative Examples"] = [{"input": "-", "output": "-", "reason": "-"}]
    assert len(read(write(tmp_path, older))) == 1
    older["Examples"]["Negative Examples"] = "-"
    assert len(read(write(tmp_path, older))) == 1


def test_instances_that_are_none_are_reported_by_file_and_number(tmp_path):
    bad = [
        {"input": 1, "output": "x"},
        {"input": "a"},
        {"input": "a", "output": []},
        {"input": "a", "output": None},
        "x",
    ]
    file = write(tmp_path, {**TASK, "Instances": [*bad, {"input": "a", "output": [3]}, {"input": "b", "output": "c"}]})
    problems = Problems()
    assert [instance.references for instance in read(file, problems)] == [("c",), ()]
    assert [where for where, _ in problems.listed] == [f"{file}:{number}" for number in range(1, 7)]
    with pytest.raises(InputError, match=r"task001_addition.json:1"):
        read(file, Problems(strict=True))


def test_a_task_without_instances_or_with_bad_examples_says_so(tmp_path):
    problems = Problems()
    broken = {**TASK, "Instances": [], "Positive Examples": [{"output": "x"}], "Negative Examples": []}
    assert read(write(tmp_path, broken), problems) == []
    assert [message for _, message in problems.listed] == [
        problems.listed[0][1],
        "the task has no instances",
    ]
    assert problems.listed[0][1].startswith("Positive Examples: input")


def test_a_bad_example_does_not_take_the_others_with_it(tmp_path):
    problems = Problems()
    some = {**TASK, "Positive Examples": [{"input": "no output"}, *TASK["Positive Examples"]]}
    whole = [instance.instruction for instance in read(write(tmp_path, TASK))]
    assert [instance.instruction for instance in read(write(tmp_path, some), problems)] == whole
    assert problems.count == 1


def test_a_folder_is_read_file_by_file_and_what_is_no_task_is_reported(tmp_path):
    write(tmp_path, TASK, "a.json")
    write(tmp_path, "{", "b.json")
    write(tmp_path, {"x": 1}, "c.json")
    problems = Problems()
    assert {instance.task for instance in read(tmp_path, problems)} == {"a"}
    assert [where for where, _ in problems.listed] == [str(tmp_path / "b.json"), str(tmp_path / "c.json")]
    for name in ("b.json", "c.json", "none.json"):
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)


def test_it_is_recognised(tmp_path):
    assert sniff(write(tmp_path, TASK)) == "natural_instructions"

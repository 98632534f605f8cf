from __future__ import annotations

import math

import pytest

from cappy_select.core.errors import InputError
from cappy_select.data.mixture import apportioned, targets
from cappy_select.data.pairs import Answer, Pair, Question, pairs_of


def question(**known) -> Question:
    return Question("t", "Which?", "g", True, **known)


def half(responses, references):
    return [0.5] * len(responses)


def made(known: Question, mode="pretrain", others=(), mismatches=1, label=half):
    return pairs_of(known, mode, label, list(others), mismatches, seed=1)


def test_a_response_is_what_it_is_first_of():
    answers = [
        Answer("right", quality=0.0),  # a reference
        Answer("wrong", quality=0.75),  # a wrong choice
        Answer("known", quality=1.0),
        Answer("known", quality=0.5),
        Answer("sampled"),
        Answer("sampled"),
    ]
    known = question(references=["right"], choices=["right", "wrong"], answers=answers)
    assert made(known, mode="adapt").pairs == [
        Pair("right", 1.0, "gold"),
        Pair("wrong", 0.0, "mismatch"),
        Pair("known", 0.75, "labelled"),
        Pair("sampled", 0.5, "augmented"),
    ]


def test_before_adapting_a_choice_that_a_model_made_says_nothing():
    known = question(references=["a"], choices=["a", "b"], answers=[Answer("c"), Answer("d", quality=1.0)])
    assert [pair.response for pair in made(known).pairs] == ["a", "b", "d"]


def test_choices_of_a_question_without_an_answer_are_not_all_wrong():
    assert made(question(choices=["a", "b"])).pairs == []


def test_known_wrong_answers_need_no_reference():
    assert made(question(negatives=["no"])).pairs == [Pair("no", 0.0, "mismatch")]


def test_a_negative_that_is_right_elsewhere_is_not_wrong():
    assert made(question(references=["Yes"], negatives=["yes "])).pairs == [Pair("Yes", 1.0, "gold")]


def test_blank_references_are_none():
    assert made(question(references=["", "  "]), others=["x"]).pairs == []


def test_what_can_not_be_labelled_is_counted_and_left_out():
    known = question(answers=[Answer("a"), Answer("a"), Answer("b"), Answer("c", label=0.25)])
    result = made(known)
    assert result.pairs == [Pair("c", 0.25, "augmented")]
    assert result.unlabelled == 2
    unsure = made(question(references=["r"], answers=[Answer("a")]), label=lambda *_: [math.nan])
    assert (unsure.unlabelled, unsure.pairs) == (1, [Pair("r", 1.0, "gold")])


@pytest.mark.parametrize("mismatches", [0, 1, 3])
def test_each_reference_has_so_many_wrong_answers_of_other_questions(mismatches):
    result = made(question(references=["r", "s"]), others=[f"o{n}" for n in range(500)], mismatches=mismatches)
    wrong = [pair for pair in result.pairs if pair.kind == "mismatch"]
    assert len({pair.response for pair in wrong}) == len(wrong) == 2 * mismatches
    assert result.unmatched == 0


def test_what_is_known_to_be_right_is_not_wrong_in_another_spelling():
    known = question(references=["The Nile."], answers=[Answer("nile", quality=1.0)])
    assert [pair.kind for pair in made(known, others=["Nile", "NILE"]).pairs] == ["gold", "labelled"]


def test_when_no_other_reference_is_to_be_had_it_is_counted():
    result = made(question(references=["Yes."]), others=["yes.", " YES. "])
    assert [pair.kind for pair in result.pairs] == ["gold"]
    assert result.unmatched == 1


# ------------------------------------------------------------------------------------------------------ mixture


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (10, [1, 1, 1], [4, 3, 3]),
        (0, [1, 2], [0, 0]),
        (7, [0, 0], [0, 0]),
        (5, [0, 3, 1], [0, 4, 1]),
        (1, [1, 1], [1, 0]),
    ],
)
def test_parts_are_whole_and_add_up(total, weights, parts):
    assert apportioned(total, weights) == parts


AVAILABLE = {"a": 100, "b": 300}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"a": 100, "b": 300}),
        ({"cap": 200}, {"a": 100, "b": 200}),
        ({"cap": 200, "rows": 30}, {"a": 10, "b": 20}),
        ({"rows": 800}, {"a": 200, "b": 600}),
        ({"mixture": "equal"}, {"a": 200, "b": 200}),
        ({"mixture": {"b": 2.0}}, {"a": 0, "b": 400}),
        ({"rows_per_task": 7}, {"a": 7, "b": 7}),
    ],
)
def test_how_many_rows_of_each_task(settings, expected):
    named = {"mixture": "proportional", "cap": None, "rows": None, "rows_per_task": None} | settings
    assert targets(AVAILABLE, named.pop("mixture"), **named) == expected


def test_a_weight_of_no_task_is_an_error():
    with pytest.raises(InputError, match="c, d"):
        targets(AVAILABLE, {"d": 1.0, "c": 1.0, "a": 1.0}, cap=None, rows=None, rows_per_task=None)


def test_of_sampled_answers_alone_neither_references_nor_wrong_choices_become_pairs():
    known = question(
        references=["r"],
        choices=["r", "w"],
        answers=[Answer("r"), Answer("x", quality=1.0), Answer("y", quality=0.0), Answer("w")],
    )
    result = pairs_of(known, "adapt", half, ["other"], 3, seed=1, sampled_only=True)
    assert {pair.response: pair.score for pair in result.pairs} == {"r": 1.0, "w": 0.0, "x": 1.0, "y": 0.0}
    assert result.unmatched == 0

"""The ways to pick one of several answers: what each takes, in ties, without an answer, without a score."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cappy_select.ask.recorded import Recorded, RecordedInstance
from cappy_select.core.types import Candidate
from cappy_select.evaluate.baselines import baselines_of, best_model_of
from cappy_select.select.strategies import WeightedVote

NAN = float("nan")


def prompt(*responses, models="abcdefgh", references=(), **fields):
    """A prompt with these answers, each by the next model; `fields` are lists, an entry an answer."""
    answers = [
        Recorded(model=model, response=response, **{name: values[place] for name, values in fields.items()})
        for place, (response, model) in enumerate(zip(responses, models, strict=False))
    ]
    return RecordedInstance(id="1", instruction="q", references=list(references), candidates=answers)


def marked(count):
    """A quality for each answer by which it is known."""
    return np.arange(1, count + 1) / 10


def ways(row, *, scores=None, quality=None):
    """What each way makes of one prompt: the place of the answer it takes (the means of places for `random`)."""
    found = baselines_of(
        [row],
        [marked(len(row.candidates)) if quality is None else np.array(quality, float)],
        {} if scores is None else {"cappy": [np.array(scores, np.float32)]},
    )
    return {name: float(values[0]) if quality else float(10 * values[0] - 1) for name, values in found.items()}


def taken(way, row, **given):
    return round(ways(row, **given)[way], 6)


def test_first_random_longest_and_oracle():
    row = prompt("two words", "a whole sentence", "short", "of equal length.")
    found = ways(row, quality=[0.5, 0.25, 1.0, 0.0])
    assert found == {"first": 0.5, "random": 0.4375, "longest": 0.25, "best_single": 1.0, "oracle": 1.0}


def test_every_way_has_a_value_for_every_prompt():
    rows = [
        prompt("yes", "yes", logprob_sum=[-1, -2], logprob_mean=[-1, -1]),
        prompt("x", logprob_sum=[-1], logprob_mean=[-1]),
    ]
    quality = [np.array([0.0, 1.0]), np.array([0.5])]
    found = baselines_of(rows, quality, {"one": [np.array([0, 1], np.float32), np.array([0], np.float32)]})
    assert list(found) == [
        "first", "random", "longest", "best_single", "vote", "self_sum", "self_mean", "one", "one_vote", "oracle",
    ]  # fmt: skip
    assert found["one"].tolist() == [1.0, 0.5]
    assert found["first"].tolist() == found["self_sum"].tolist() == [0.0, 0.5]


def test_the_best_single_model_counts_by_its_first_answers_and_a_missing_one_is_wrong():
    rows = [prompt("x", "y", "z", models="aab"), prompt("x", models="b"), prompt("x", "y", models="ca")]
    quality = [np.array([0.0, 1.0, 0.5]), np.array([0.5]), np.array([1.0, 0.75])]
    # a: 0, -, 0.75; b: 0.5, 0.5, -; c: -, -, 1
    assert best_model_of(rows, quality) == "b"
    assert baselines_of(rows, quality, {})["best_single"].tolist() == [0.5, 0.5, 0.0]


def test_of_equally_good_models_the_earlier_is_the_best():
    assert best_model_of([prompt("x", "y", "z")], [np.array([0.0, 1.0, 1.0])]) == "b"


@pytest.mark.parametrize(
    ("responses", "expected"),
    [
        (("no", "Yes.", "yes"), 1),
        (("no", "yes", "Yes!", "No"), 0),  # a tie: the first
        (("", "", "", "yes", "yes"), 3),  # nothing is no answer
        (("...", "--", "yes", "yes"), 2),
    ],
)
def test_a_vote_takes_the_first_giver_of_the_most_frequent_answer(responses, expected):
    assert taken("vote", prompt(*responses)) == expected


def test_votes_compare_numbers_where_references_are_numbers_and_recorded_answers_first():
    assert taken("vote", prompt("3 + 4 = 8", "it is 7", "7.0", references=["7"])) == 1
    assert taken("vote", prompt("x", "y", "z", answer=["A", "(B)", "b"])) == 1


def test_without_a_majority_in_half_of_the_prompts_there_is_no_vote():
    alike, different = prompt("yes", "yes"), prompt("yes", "no")
    scores, quality = np.array([0, 1], np.float32), np.array([0.0, 1.0])

    def names(*rows):
        return baselines_of(rows, [quality] * len(rows), {"cappy": [scores] * len(rows)}).keys()

    assert {"vote", "cappy_vote"} <= names(alike, different)
    assert not {"vote", "cappy_vote"} & names(alike, different, different)
    assert not {"vote", "cappy_vote"} & names(prompt("", ""))


def test_self_scoring_takes_the_likeliest_where_all_likelihoods_are_known():
    row = prompt("x", "y", "z", logprob_sum=[-3, -1, -1], logprob_mean=[-0.1, NAN, -0.2])
    assert (taken("self_sum", row), taken("self_mean", row)) == (1, 0)
    half = prompt("x", "y", logprob_sum=[-3, None], logprob_mean=[-2, -1])
    assert "self_sum" not in ways(half)
    assert taken("self_mean", half) == 1
    assert not {"self_sum", "self_mean"} & ways(prompt("x", "y")).keys()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([0.1, 0.3, 0.2], 1), ([0.3, 0.3, 0.2], 0), ([NAN, -5, -3], 2), ([NAN, NAN, -9], 2)],
)
def test_the_highest_score_wins_the_first_of_a_tie_and_never_nan(scores, expected):
    assert taken("cappy", prompt("x", "y", "z"), scores=scores) == expected


def test_a_scorer_without_a_number_picks_nothing_which_is_wrong_and_not_the_first_answer():
    found = ways(prompt("no", "yes", "yes"), scores=[NAN, NAN, NAN], quality=[1, 1, 1])
    assert (found["cappy"], found["cappy_vote"], found["first"]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("responses", "scores", "expected"),
    [
        (("no", "yes", "yes"), [0.9, 0.5, 0.6], 2),  # 1.1 against 0.9
        (("no", "yes", "yes"), [0.9, 0.5, 0.3], 0),
        (("no", "yes", "yes"), [0.5, 0.9, -9.0], 1),  # a score below 0 takes nothing away
        (("no", "yes", "yes"), [-0.1, -0.5, -0.3], 2),  # all below 0: the more frequent, of it the best
        (("no", "yes", "yes"), [0.4, NAN, 0.3], 0),  # NaN adds nothing
        (("no", "yes", "yes"), [0.1, NAN, 0.3], 2),
        (("", "yes", "yes"), [9.0, 0.1, 0.2], 2),  # who gives no answer can't win,
        (("", "yes", "yes"), [9.0, NAN, NAN], 0),  # unless nobody with a score does
    ],
)
def test_score_times_vote(responses, scores, expected):
    assert taken("cappy_vote", prompt(*responses), scores=scores) == expected


def test_score_times_vote_is_the_strategy_of_that_name():
    for answers in itertools.product(["", "x", "y"], repeat=3):
        row = prompt("x", "x", "y", *answers)
        for scores in itertools.product([-1.0, 0.0, 0.5], repeat=3):
            marks = [0.25, -0.5, 0.5, *scores]
            candidates = [
                Candidate(model="m", message={"role": "assistant", "content": a.response}, index=place, score=mark)
                for place, (a, mark) in enumerate(zip(row.candidates, marks, strict=True))
            ]
            best = WeightedVote("text").order(candidates)[0].index
            assert taken("cappy_vote", row, scores=marks) == best, (answers, scores)

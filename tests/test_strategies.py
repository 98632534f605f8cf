from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_select import (
    Candidate,
    Cluster,
    InputError,
    MinimumBayesRisk,
    QualityCost,
    SelfScore,
    Vote,
    WeightedVote,
)
from cappy_select.select.strategies import NAMES, strategy_named
from cappy_select.text.extractors import extractor
from cappy_select.text.similarity import rouge_l, words


def candidates(*rows, **common):
    """(text, score) each, in request order."""
    return [
        Candidate(model="m", message={"role": "assistant", "content": text}, index=index, score=score, **common)
        for index, (text, score) in enumerate(rows)
    ]


def order(strategy, rows):
    return [candidate.index for candidate in strategy.order(rows)]


def test_a_vote_goes_by_answers_not_by_scores():
    rows = candidates(("It is 7.", 0.9), ("so 42", 0.1), ("A: 42.0", 0.2), ("none", 1.0))
    assert order(Vote("number"), rows) == [1, 2, 0, 3]


def test_a_tied_vote_goes_to_the_first_mentioned_and_silence_never_wins():
    rows = candidates(("hm", 1.0), ("hm", 1.0), ("1", 0.1), ("2", 0.9))
    assert order(Vote("number"), rows) == [2, 3, 0, 1]
    assert order(WeightedVote("number"), rows) == [3, 2, 0, 1]


def test_a_weighted_vote_sums_scores_and_takes_the_best_giver():
    rows = candidates(("7", 0.9), ("42", 0.5), ("42", 0.6), ("42", -5.0))
    assert order(WeightedVote("number"), rows) == [2, 1, 3, 0]


def test_where_all_scores_are_negative_the_number_decides_then_the_best():
    rows = candidates(("1", -0.1), ("2", -0.5), ("2", -0.4), ("3", -0.2))
    assert order(WeightedVote("number"), rows) == [2, 1, 0, 3]
    assert order(Cluster(), candidates(("a b", -2.0), ("c d", -1.0))) == [1, 0]


def test_an_extractor_that_finds_nothing_may_say_none():
    rows = candidates(("x", 0.9), ("y", 0.9), ("42", 0.1))
    assert order(Vote(lambda c: c.text if c.text.isdigit() else None), rows) == [2, 0, 1]


def test_a_cluster_gathers_what_is_alike_and_the_best_member_wins():
    rows = candidates(
        ("The river begins in Peru near Nauta.", 0.5),
        ("Nobody knows.", 0.8),
        ("The river begins in Peru, near the town of Nauta.", 0.6),
    )
    assert order(Cluster(0.5), rows) == [2, 0, 1]
    assert order(Cluster(1.0), rows) == [1, 2, 0]


def test_self_scoring_goes_by_the_models_own_likelihood():
    rows = [
        c.model_copy(update={"logprob_sum": total, "logprob_mean": mean})
        for c, (total, mean) in zip(
            candidates(("a", 0.1), ("b", 0.9), ("c", 0.5), ("d", 0.5)),
            [(-9.0, -1.0), (-2.0, -2.0), (None, None), (math.nan, math.nan)],
            strict=True,
        )
    ]
    assert order(SelfScore("sum"), rows) == [1, 0, 2, 3]
    assert order(SelfScore("mean"), rows) == [0, 1, 2, 3]
    with pytest.raises(InputError, match="no candidate has log-probabilities"):
        SelfScore().order(candidates(("a", 0.1)))


def test_minimum_bayes_risk_takes_the_most_typical():
    rows = candidates(("red green", 0.9), ("red green blue", 0.1), ("green blue", 0.2), ("other", 1.0))
    assert order(MinimumBayesRisk(), rows) == [1, 0, 2, 3]
    assert order(MinimumBayesRisk(), candidates(("alone", 0.5))) == [0]


def test_quality_is_weighed_against_dollars_and_seconds():
    cheap, dear, unknown = candidates(("a", 0.8), ("b", 0.9), ("c", 1.0))
    rows = [
        cheap.model_copy(update={"cost": 0.001, "latency_s": 3.0}),
        dear.model_copy(update={"cost": 0.01, "latency_s": 0.5}),
        unknown.model_copy(update={"cost": None}),
    ]
    assert order(QualityCost(per_dollar=1), rows) == [1, 0, 2]
    assert order(QualityCost(per_dollar=20), rows) == [0, 1, 2]
    assert order(QualityCost(per_second=0.1), rows) == [2, 1, 0]


@given(st.lists(st.tuples(st.sampled_from(["1", "2", "two 2", "", "x"]), st.floats(-1, 2)), min_size=1, max_size=8))
def test_every_strategy_returns_what_it_was_given_whatever_the_order_it_came_in(rows):
    given_rows = candidates(*rows, cost=0.1, logprob_sum=-1.0, logprob_mean=-0.5)
    for name in NAMES:
        strategy = strategy_named(name, extract="number")
        assert strategy.name == name
        ordered = order(strategy, given_rows)
        assert sorted(ordered) == list(range(len(rows)))
        assert ordered == order(strategy, given_rows[::-1])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("number", "so 3 + 4 = 1,007.50", "1007.5"),
        ("number", "1e", "1"),
        ("number", "none", ""),
        ("number", "100", "100"),
        ("text", "The Amazon!", "amazon"),
        ("text", "-3.", "-3"),
        ("text", "It is 1,500.0!", "it is 1500"),
        ("text", "C++ (not C)", "c++ not c"),
        ("text", "2/3", "2/3"),
        ("after:The answer is", "The answer is -1.5.", "-1.5"),
        ("line", "thinking\n\nThe answer: B\n", "answer b"),
        ("line", "", ""),
        ("boxed", r"so \boxed{\frac{1}{2} }.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{never ends", ""),
        ("after:####", "steps\n#### 42 \nbye", "42"),
        ("after:####", "no marker", ""),
        (r"regex:\(([A-D])\)", "(A) or rather (C)", "c"),
        ("regex:[0-9]+", "4 5", "5"),
    ],
)
def test_the_answer_within_an_answer(name, text, expected):
    assert extractor(name)(candidates((text, 0.0))[0]) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: extractor("last"), "there are text, number"),
        (lambda: extractor("after:"), "marker is empty"),
        (lambda: extractor("regex:("), "no regular expression"),
        (lambda: strategy_named("best"), "there are argmax, vote"),
        (lambda: QualityCost(), "give per_dollar"),
        (lambda: QualityCost(per_dollar=-1), "not negative"),
        (lambda: SelfScore("median"), "'sum' or 'mean'"),
        (lambda: Cluster(0), r"\(0, 1\]"),
    ],
)
def test_what_means_nothing_is_an_error(make, message):
    with pytest.raises(InputError, match=message):
        make()


def brute_lcs(first, second):
    best = 0
    for size in range(len(first) + 1):
        for places in itertools.combinations(range(len(first)), size):
            left = iter(second)
            if all(first[place] in left for place in places):
                best = size
    return best


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=6))
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(first, second):
    lcs = brute_lcs(first, second)
    precision, recall = (lcs / len(part) if part else 0.0 for part in (second, first))
    expected = 2 * precision * recall / (precision + recall) if lcs else 0.0
    assert rouge_l(first, second) == pytest.approx(expected)
    assert words("नमस्ते Peru!") != []

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import awkward_pairs

from cappy_select import InputError, Scorer, TruncationWarning


class Counting(Scorer):
    """Counts the rows that the model really runs."""

    rows = 0

    def _run(self, batch):
        self.rows += len(batch)
        return super()._run(batch)


def test_scores_are_float32_in_the_order_given(tiny):
    pairs = awkward_pairs(60)
    together = tiny.score_detailed(pairs).scores
    alone = np.array([tiny.score_detailed([pair]).scores[0] for pair in pairs])
    assert together.dtype == np.float32
    assert together.shape == (60,)
    assert np.unique(together.round(4)).size > 20  # the pairs really score differently
    np.testing.assert_allclose(together, alone, atol=1e-5)


@given(order=st.permutations(range(12)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_pairs_does_not_change_their_scores(tiny, order):
    pairs = awkward_pairs(12)
    shuffled = tiny.score_detailed([pairs[i] for i in order]).scores
    np.testing.assert_allclose(shuffled, tiny.score_detailed(pairs).scores[list(order)], atol=1e-5)


def test_an_identical_pair_is_scored_once_and_gets_the_same_bits(tiny):
    scorer = Counting(tiny.bundle, cache=False)
    done: list[int] = []
    pairs = [("a question", "yes"), ("a question", "no")] * 50
    scored = scorer.score_detailed(pairs, on_progress=done.append)
    assert scorer.rows == 2
    assert sum(done) == 100
    assert len(set(scored.scores.tolist())) == 2


def test_rank_is_best_first_with_the_earlier_of_equals_first(default):
    ranked = default.rank("What is the capital of Australia?", ["Vienna", "Canberra", "Vienna", "Canberra"])
    assert [row.score for row in ranked] == sorted((row.score for row in ranked), reverse=True)
    first, second, third, fourth = ranked
    assert first.response == second.response
    assert first.index < second.index
    assert third.index < fourth.index
    assert {row.index for row in ranked} == {0, 1, 2, 3}


def test_score_and_score_pairs_agree(tiny):
    np.testing.assert_array_equal(tiny.score("q", ["a", "b"]), tiny.score_pairs([("q", "a"), ("q", "b")]))


def test_generators_are_taken(tiny):
    assert tiny.score_pairs((q, "a") for q in ("x", "y")).shape == (2,)
    assert tiny.score("q", (r for r in "ab")).shape == (2,)


def test_nothing_to_score_is_an_empty_array(tiny):
    assert tiny.score("q", []).shape == (0,)
    assert tiny.score_pairs([]).dtype == np.float32
    assert tiny.rank("q", []) == []


def test_truncation_warns_once_and_says_how_much(tiny):
    with pytest.warns(TruncationWarning) as caught:
        tiny.score("question " * 600, ["yes", "no"])
        tiny.score_pairs([("short", "yes"), ("long " * 600, "no")])
    assert [warning.filename for warning in caught] == [__file__, __file__]
    both, one = (str(warning.message) for warning in caught)
    assert both.startswith("2 of 2 pairs did not fit the scorer's window of 512 tokens")
    assert one.startswith("1 of 2 pairs")


def test_rank_reports_what_was_cut(tiny):
    with pytest.warns(TruncationWarning):
        cut = tiny.rank("which answer " * 300, ["yes"])[0].tokens_cut
    whole = tiny.rank("which answer", ["yes"])[0].tokens_cut
    assert cut == tiny.count_tokens("which answer " * 300) + tiny.count_tokens("yes") - tiny.window
    assert whole == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.score("q", "yes"), "put it in a list"),
        (lambda s: s.rank("q", "yes"), "put it in a list"),
        (lambda s: s.score(3, ["yes"]), "instruction must be a str"),
        (lambda s: s.score("q", ["yes", None]), "pair 1 must be"),
        (lambda s: s.score_pairs([("q", 1)]), "pair 0 must be"),
        (lambda s: s.score_pairs(3), "got int"),
        (lambda s: s.score("q", None), "got NoneType"),
        (lambda s: s.score("q", [b"yes"]), "pair 0 must be"),
    ],
)
def test_bad_input_is_named(tiny, call, message):
    with pytest.raises(InputError, match=message):
        call(tiny)


def test_many_threads_get_the_scores_of_one(tiny):
    pairs = awkward_pairs(20)
    alone = tiny.score_detailed(pairs).scores
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(tiny.score_detailed(pairs).scores)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results:
        np.testing.assert_array_equal(result, alone)


def test_the_default_knows_the_easy_cases(default):
    article = "What label best describes this news article?\nOil prices rose on Monday after producers cut output."
    labels = ["World politics", "Sports", "Business", "Science and technology"]
    assert default.rank(article, labels)[0].response == "Business"
    passage = "The Marañón and the Ucayali meet near Nauta. Question: Which two rivers meet near Nauta?"
    assert default.rank(passage, ["Peru has many rivers.", "The Marañón and the Ucayali."])[0].index == 1


def test_the_default_is_small_and_says_where_it_comes_from():
    bundle = Scorer.load().bundle
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) <= 25e6
    manifest = bundle.manifest
    assert manifest.name == "cappy-mini"
    assert manifest.provenance["data"]
    assert manifest.licenses
    assert manifest.gates["winner_agreement"] >= 0.9


def test_int8_scores_do_not_depend_on_neighbours(default):
    """Dynamic int8 fails this by 0.3 of the signal: one scale for a whole batch."""
    pairs = awkward_pairs(40, seed=7)
    together = default.score_detailed(pairs).scores
    alone = np.array([default.score_detailed([pair]).scores[0] for pair in pairs])
    np.testing.assert_allclose(together, alone, atol=2e-3)


@pytest.mark.parametrize("providers", [["Nope"], "CPUExecutionProvider"])
def test_an_execution_provider_that_is_not_there_is_an_error_and_no_silent_cpu(providers):
    with pytest.raises(InputError, match="CPUExecutionProvider"):
        Scorer.load(providers=providers)


def test_threads_must_be_positive():
    with pytest.raises(InputError, match="threads"):
        Scorer.load(threads=0)

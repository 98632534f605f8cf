from __future__ import annotations

import numpy as np

from cappy_select.data.contamination import COMMON, RUN, Evaluations, runs_of, telling_runs

WORDS = [f"w{number}" for number in range(40)]


def text(start: int, stop: int) -> str:
    return " ".join(WORDS[start:stop])


def test_a_text_has_a_run_from_each_word_that_has_enough_after_it():
    assert len(runs_of(text(0, 40))) == 40 - RUN + 1
    assert len(runs_of(text(0, RUN))) == 1
    assert len(runs_of(text(0, 5))) == 1
    assert len(runs_of("...")) == 0


def test_runs_are_of_words_in_their_order_whatever_stands_between():
    assert set(runs_of("Before! " + text(5, 20).upper().replace(" ", ", "))) >= set(runs_of(text(5, 20)))
    backwards = " ".join(reversed(WORDS[5:20]))
    assert not set(runs_of(backwards)) & set(runs_of(text(5, 20)))
    assert not set(runs_of(text(0, 5))) & set(runs_of(text(0, 6)))  # a short text is meant as a whole


def test_thirteen_words_in_common_are_found_and_twelve_are_not():
    evaluations = Evaluations([telling_runs([]), telling_runs([("e", text(0, 20))])])
    assert evaluations.found_in("x " + text(5, 5 + RUN) + " y") == 1
    assert evaluations.found_in("x " + text(5, 5 + RUN - 1) + " y") is None
    assert evaluations.found_in("") is None


def test_what_many_evaluation_instances_share_is_no_sign():
    shared = text(0, 20)
    few = telling_runs([(f"{number}", f"{shared} end{number}") for number in range(COMMON)])
    many = telling_runs([(f"{number}", f"{shared} end{number}") for number in range(COMMON + 1)])
    one = telling_runs([("the same example", f"{shared} template{number}") for number in range(COMMON + 1)])
    assert Evaluations([one]).found_in(shared) == 0
    assert Evaluations([few]).found_in(shared) == 0
    assert Evaluations([many]).found_in(shared) is None
    assert np.all(np.diff(many.astype(object)) > 0)

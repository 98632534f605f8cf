from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_select.core.figures import MOST_DOLLARS, MOST_TOKENS, dollars_of, tokens_of


@pytest.mark.parametrize(
    ("said", "tokens"), [(0, 0), (12, 12), (12.0, 12), (np.int64(5), 5), (MOST_TOKENS, MOST_TOKENS)]
)
def test_a_count_is_taken_as_it_is(said, tokens):
    assert tokens_of(said) == tokens


@pytest.mark.parametrize("said", [-1, 1.5, math.nan, math.inf, True, "12", None, [], {}, MOST_TOKENS + 1, 10**400])
def test_what_is_no_count_is_unknown(said):
    assert tokens_of(said) is None


@pytest.mark.parametrize(
    "said", [-1e-9, math.nan, math.inf, -math.inf, True, "0.5", None, [], MOST_DOLLARS * 2, 10**400]
)
def test_what_are_no_dollars_is_unknown(said):
    assert dollars_of(said) is None


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.text(), st.none()))
def test_no_figure_lowers_a_sum_or_makes_it_nan(said):
    for figure in (tokens_of(said), dollars_of(said)):
        assert figure is None or (figure >= 0 and math.isfinite(figure))

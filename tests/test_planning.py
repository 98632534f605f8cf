from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cappy_select.scorer.planning import padded_length, plan


@given(st.lists(st.integers(1, 512), max_size=200), st.integers(64, 4096))
def test_every_row_is_in_exactly_one_batch_and_no_batch_is_over_the_budget(lengths, budget):
    batches = [batch.tolist() for batch in plan(lengths, budget)]
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * padded_length(max(lengths[row] for row in batch)) <= budget


@given(st.lists(st.integers(1, 512), min_size=2, max_size=200))
def test_batches_ascend_in_length(lengths):
    order = [lengths[row] for batch in plan(lengths) for row in batch]
    assert order == sorted(order)


def test_rows_of_one_length_fill_the_budget():
    assert [len(batch) for batch in plan([64] * 100, 640)] == [10] * 10


@given(st.integers(1, 512))
def test_padding_rounds_up_by_less_than_a_step(length):
    assert length <= padded_length(length) < length + 8

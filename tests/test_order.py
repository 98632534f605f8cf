from __future__ import annotations

import numpy as np
import pytest

from cappy_select.train.order import permuted, rows_of_update


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 65, 1000, 12_345])
def test_every_row_comes_once_an_epoch(count):
    for epoch in (0, 1):
        assert sorted(permuted(np.arange(count), count, 5, epoch)) == list(range(count))


def test_the_order_is_that_of_its_seed_and_epoch():
    orders = [permuted(np.arange(1000), 1000, seed, epoch) for seed, epoch in [(0, 0), (0, 1), (1, 0), (0, 0)]]
    assert (orders[0] == orders[3]).all()
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        assert (orders[first] == orders[second]).mean() < 0.02


def test_rows_are_well_mixed():
    order = permuted(np.arange(100_000), 100_000, 3, 0)
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.02
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert np.ptp(np.histogram(order[:10_000], 20)[0]) < 150  # the first tenth is from everywhere


def test_an_update_is_arithmetic_and_may_span_two_epochs():
    drawn = np.concatenate([rows_of_update(update, 30, 100, 9) for update in range(10)])
    assert sorted(drawn[:100]) == sorted(drawn[100:200]) == sorted(drawn[200:]) == list(range(100))
    assert (drawn[:100] != drawn[100:200]).any()
    assert (rows_of_update(7, 30, 100, 9) == drawn[210:240]).all()


def test_a_billion_rows_take_no_memory():
    rows = rows_of_update(3, 1024, 10**9, 1)
    assert len(set(rows.tolist())) == 1024
    assert rows.min() >= 0
    assert rows.max() < 10**9

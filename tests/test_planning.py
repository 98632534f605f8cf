from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cappy_select.scorer.planning import WINDOW_PAIRS, next_batch, padded_length, shares, windows

lengths = st.lists(st.integers(1, 512), min_size=1, max_size=60).map(lambda found: sorted(found, reverse=True))


@given(st.lists(lengths, min_size=1, max_size=12), st.integers(8, 4096))
def test_batch_after_batch_takes_every_row_once_and_none_is_over_the_budget(callers, budget):
    waiting = [list(enumerate(rows)) for rows in callers]
    taken = []
    while any(waiting):
        able = [number for number, rows in enumerate(waiting) if rows]
        batch = next_batch([[length for _, length in waiting[number]] for number in able], budget)
        rows = [(able[caller], *waiting[able[caller]][place]) for caller, place in batch]
        oldest = waiting[able[0]][0]
        assert (able[0], *oldest) in rows  # whoever waits longest gets on
        assert len(rows) == 1 or len(rows) * padded_length(max(length for *_, length in rows)) <= budget
        for caller, row, length in rows:
            waiting[caller].remove((row, length))
        taken += [(caller, row) for caller, row, _ in rows]
    assert sorted(taken) == [(caller, row) for caller, rows in enumerate(callers) for row in range(len(rows))]


def test_a_batch_is_filled_with_rows_of_like_length_whoever_s_they_are():
    batch = next_batch([[100, 20], [104, 100, 99], [500]], budget=4 * 104)
    assert batch == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_a_share_is_four_batches_when_there_are_as_many():
    assert [piece.stop - piece.start for piece in shares([64] * 100, 640)] == [40, 40, 20]


def test_a_batch_ends_where_padding_would_cost_more_than_another_batch():
    assert len(next_batch([[200, 196, 100, 100, 96]], 1024)) == 2
    assert len(next_batch([[24, 20, 16, 12]], 1024)) == 4


def test_rows_of_one_length_fill_the_budget():
    assert len(next_batch([[64] * 100], 640)) == 10


@given(lengths, st.integers(64, 4096))
def test_shares_are_consecutive_and_at_most_four_batches(rows, budget):
    pieces = list(shares(rows, budget))
    assert [row for piece in pieces for row in rows[piece]] == rows
    for piece in pieces:
        waiting, batches = rows[piece], 0
        while waiting:
            waiting, batches = waiting[len(next_batch([waiting], budget)) :], batches + 1
        assert 1 <= batches <= 4


@given(st.integers(1, 512))
def test_padding_rounds_up_by_less_than_a_step(length):
    assert length <= padded_length(length) < length + 8


def test_a_window_is_so_many_pairs_or_so_many_characters():
    short = [("q", str(i)) for i in range(2 * WINDOW_PAIRS + 1)]
    assert [len(window) for window in windows(iter(short))] == [WINDOW_PAIRS, WINDOW_PAIRS, 1]
    long = [(f"{n}" + "q" * 1_500_000, "a") for n in range(7)]
    assert [len(window) for window in windows(iter(long))] == [3, 3, 1]
    shared = [("q" * 1_500_000, f"{n}") for n in range(50)]  # one text: it is held, and encoded, once
    assert [len(window) for window in windows(iter(shared))] == [50]
    assert list(windows([])) == []


def test_a_window_is_yielded_before_more_is_read():
    read = []

    def endless():
        while True:
            read.append(1)
            yield "q", "a"

    next(windows(endless()))
    assert len(read) == WINDOW_PAIRS

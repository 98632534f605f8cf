from __future__ import annotations

import numpy as np
import pytest

from cappy_select.train.batches import Batches
from cappy_select.train.tokens import TokenSet


def token_set(rows=100, groups=20, longest=100, seed=0, vocabulary=1000, types=2) -> TokenSet:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(4, longest + 1, rows)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    cuts = np.sort(draw.choice(np.arange(1, rows), groups - 1, replace=False))
    return TokenSet(
        ids=draw.integers(5, vocabulary, starts[-1]).astype(np.uint16),
        starts=starts,
        responses=(np.minimum(lengths, 3) if types == 2 else lengths).astype(np.int32),
        scores=draw.random(rows).astype(np.float32),
        groups=np.concatenate([[0], cuts, [rows]]),
        tasks=("t",) * groups,
        cut=0,
    )


BUCKETS = (16, 32, 64, 128)


def batches(tokens, **options) -> Batches:
    named = {"batch": 30, "micro_tokens": 512, "buckets": BUCKETS, "pad": 0, "seed": 3} | options
    return Batches(tokens, **named)


def rows_in(tokens, made):
    """Which rows a micro-batch has, by their scores, which are all different."""
    number = {score: row for row, score in enumerate(tokens.scores.tolist())}
    return [
        number[score] for score, real in zip(made.scores.ravel().tolist(), made.weights.ravel(), strict=True) if real
    ]


def test_an_epoch_has_every_pair_once_and_an_update_only_its_own():
    tokens = token_set()
    seen = [rows_in(tokens, made) for update in range(10) for made in batches(tokens).of_update(update)]
    flat = [row for rows in seen for row in rows]
    assert sorted(flat) == sorted(list(range(100)) * 3)
    assert sum(len(rows_in(tokens, made)) for made in batches(tokens).of_update(4)) == 30


def test_there_is_one_shape_a_bucket_and_what_is_padded_is_as_it_was():
    tokens = token_set()
    shapes = {}
    for update in range(10):
        for made in batches(tokens).of_update(update):
            shapes.setdefault(made.ids.shape[1], set()).add(made.ids.shape)
            rows = rows_in(tokens, made)
            for place, row in enumerate(rows):
                length = made.lengths[place]
                assert made.ids[place, :length].tolist() == tokens.ids[tokens.starts[row] :][:length].tolist()
                assert length == tokens.lengths[row] <= made.ids.shape[1]
                assert (made.ids[place, length:] == 0).all()
                assert made.types[place].tolist() == [0] * 3 + [1] * (length - 3) + [0] * (made.ids.shape[1] - length)
            assert (made.weights.ravel()[len(rows) :] == 0).all()
            assert (made.lengths[len(rows) :] == 1).all()
    assert shapes.keys() <= set(BUCKETS)
    assert all(found == {(512 // length, length)} for length, found in shapes.items())


def test_rows_that_fill_no_micro_batch_go_with_longer_ones():
    tokens = token_set(rows=300)
    made = batches(tokens, batch=100).of_update(0)
    filled = [int(micro.weights.sum()) == len(micro.weights) for micro in made]
    assert all(filled[:-1])  # only the last, the longest, may have empty rows
    assert sum(len(rows_in(tokens, micro)) for micro in made) == 100
    assert len({micro.ids.shape for micro in made}) >= 3


@pytest.mark.parametrize("multiple", [1, 3, 8])
def test_rows_are_a_multiple_of_the_devices(multiple):
    for made in batches(token_set(), multiple=multiple).of_update(0):
        assert len(made.ids) % multiple == 0


def test_a_unit_is_some_rows_of_one_group():
    tokens = token_set(rows=100, groups=20)
    group = np.repeat(np.arange(20), np.diff(tokens.groups))
    grouped = batches(tokens, batch=7, width=4)
    assert grouped.units == 20
    seen = []
    for update in range(20):  # seven epochs
        for made in grouped.of_update(update):
            number = {score: row for row, score in enumerate(tokens.scores.tolist())}
            for scores, weights in zip(made.scores, made.weights, strict=True):
                rows = [number[score] for score, real in zip(scores.tolist(), weights, strict=True) if real]
                if rows:
                    assert len({group[row] for row in rows}) == 1
                    assert len(set(rows)) == len(rows) == min(4, np.diff(tokens.groups)[group[rows[0]]])
                    seen.append(int(group[rows[0]]))
    assert sorted(seen) == sorted(list(range(20)) * 7)


def test_going_on_is_arithmetic():
    tokens = token_set()
    for width in (1, 4):
        first, again = (batches(tokens, width=width).of_update(6) for _ in range(2))
        assert all((a.ids == b.ids).all() and (a.scores == b.scores).all() for a, b in zip(first, again, strict=True))

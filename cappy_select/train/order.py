"""Which rows an update sees: a function of (seed, epoch, update) alone, so that going on is arithmetic.

An epoch's order is a permutation that is computed, not kept: a Feistel network over the row numbers (Black and
Rogaway 2002, "Ciphers with Arbitrary Finite Domains"), so 160 million rows take no memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cappy_select.data.hashing import mixed

Rows = npt.NDArray[np.int64]
_ROUNDS = 6


def rows_of_update(update: int, batch: int, count: int, seed: int) -> Rows:
    """int64[batch]: the rows of an update, drawn without replacement within an epoch; one may span two epochs."""
    places = np.arange(update * batch, (update + 1) * batch, dtype=np.int64)
    epochs, within = np.divmod(places, count)
    rows = np.empty(batch, np.int64)
    for epoch in np.unique(epochs):
        mine = epochs == epoch
        rows[mine] = permuted(within[mine], count, seed, int(epoch))
    return rows


def permuted(places: Rows, count: int, seed: int, epoch: int) -> Rows:
    """The places' rows in an epoch: a permutation of 0 to count - 1. int64[n] -> int64[n]."""
    half = max(1, (int(count - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = mixed(np.arange(1, _ROUNDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ _key(seed, epoch))
    found = places.astype(np.uint64)
    outside = np.ones(len(found), bool)
    while outside.any():  # a walk along the cycle until it is within the range again: under four turns on average
        left, right = found[outside] >> np.uint64(half), found[outside] & mask
        for key in keys:
            left, right = right, left ^ (mixed(right ^ key) & mask)
        found[outside] = (left << np.uint64(half)) | right
        outside[outside] = found[outside] >= count
    return found.astype(np.int64)


def _key(seed: int, epoch: int) -> np.uint64:
    both = np.array([seed, epoch], np.uint64)
    first = mixed(both[:1])
    return np.uint64(mixed(first ^ (both[1:] * np.uint64(0xD1342543DE82EF95)))[0])

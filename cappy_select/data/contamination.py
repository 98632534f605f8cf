"""Does training data hold what will be measured on? Shared runs of 13 words, as GPT-3 looked for them.

A run that stands in more than ten evaluation instances is a template's wording, and says nothing (Brown et al.
2020, appendix C, leave such runs out too); those of one group count as one. Of a shorter text the whole must be the
same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from cappy_select.data.hashing import mixed
from cappy_select.text.similarity import words

RUN = 13
COMMON = 10

_Hashes = npt.NDArray[np.uint64]


def runs_of(text: str) -> _Hashes:
    """uint64[runs]: a hash of each run of `RUN` words, or of the whole of a shorter text."""
    found = words(text)
    if not found:
        return np.zeros(0, np.uint64)
    hashes = mixed(np.fromiter((zlib.crc32(word.encode(errors="replace")) for word in found), np.uint64, len(found)))
    length = min(RUN, len(found))
    total = np.zeros(len(found) - length + 1, np.uint64)
    for place in range(length):
        total = total * np.uint64(0x9E3779B97F4A7C15) + hashes[place : len(found) - length + 1 + place]
    return mixed(total + np.uint64(length))


def telling_runs(rows: Iterable[tuple[str, str]]) -> _Hashes:
    """uint64[n], sorted: the runs of evaluation instructions, by (group, instruction), that few groups share."""
    by_group: dict[str, list[_Hashes]] = {}
    for group, text in rows:
        by_group.setdefault(group, []).append(runs_of(text))
    each = [np.unique(np.concatenate(runs)) for runs in by_group.values()]
    values, counts = np.unique(np.concatenate([*each, np.zeros(0, np.uint64)]), return_counts=True)
    kept: _Hashes = values[counts <= COMMON]
    return kept


class Evaluations:
    """What tells the instructions of several evaluation files, a sorted uint64[n] each."""

    def __init__(self, runs: Sequence[_Hashes]) -> None:
        self._runs = runs

    def found_in(self, text: str) -> int | None:
        """The number of the first evaluation file that shares a run with a text."""
        if not self._runs:
            return None
        mine = runs_of(text)
        for number, runs in enumerate(self._runs):
            if len(runs) and len(mine):
                at = np.minimum(np.searchsorted(runs, mine), len(runs) - 1)
                if (runs[at] == mine).any():
                    return number
        return None

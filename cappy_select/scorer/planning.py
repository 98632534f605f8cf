"""Which pairs run together: of like length, in batches of bounded size, so little is spent on padding."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

WINDOW_PAIRS = 4096  # what a generator is read ahead; sorting more of them saves little padding
_WINDOW_CHARACTERS = 4_000_000
_STEP = 8  # lengths are padded up to a multiple, so that few shapes occur
_ALIKE = 32  # tokens: among rows this close in length, who came first goes first
_LOOK_AHEAD = 64  # callers considered for one batch
_BATCHES_PER_SHARE = 4  # what a caller hands in at a time; others' rows get in between


def tokens_per_batch(threads: int) -> int:
    """Padded tokens of one batch on a CPU.

    Large enough for the matrix products, small enough that a layer's activations stay in the cache: with two
    threads, 4,096 tokens of RoBERTa-large took 1.5 times as long a token as 1,024.
    """
    return min(max(1024, 512 * threads), 8192)


def padded_length(length: int) -> int:
    """The length a batch with this longest row is padded to."""
    return -(-length // _STEP) * _STEP


def next_batch(callers: Sequence[Sequence[int]], budget: int) -> list[tuple[int, int]]:
    """The rows to run now, as (caller, row), at most `budget` padded tokens together, or a single row.

    Args:
        callers: The lengths of each caller's waiting rows, longest first; the caller that has waited longest
            is first, and its longest row is always taken, so nobody waits for ever.
        budget: Padded tokens.
    """
    width = padded_length(callers[0][0])
    able = (
        ((width - padded_length(length)) // _ALIKE, caller, row)
        for caller, lengths in enumerate(callers[:_LOOK_AHEAD])
        for row, length in enumerate(lengths)
        if length <= width
    )
    return [(caller, row) for _, caller, row in heapq.nsmallest(max(1, budget // width), able)]


def shares(lengths: Sequence[int], budget: int) -> Iterator[slice]:
    """One caller's rows, longest first, in runs of a few full batches."""
    start = end = batches = 0
    while end < len(lengths):
        end += max(1, budget // padded_length(lengths[end]))
        batches += 1
        if batches == _BATCHES_PER_SHARE or end >= len(lengths):
            yield slice(start, end)
            start, batches = end, 0


def windows(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """The pairs in runs that are safe to hold: so many pairs, or so many characters."""
    window: list[tuple[str, str]] = []
    characters = 0
    for pair in pairs:
        window.append(pair)
        characters += len(pair[0]) + len(pair[1])
        if len(window) == WINDOW_PAIRS or characters >= _WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window

"""Which pairs run together: sorted by length, in batches of bounded size, so little is spent on padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

TOKENS_PER_BATCH = 4096  # padded tokens; beyond this, throughput on a CPU no longer grows, memory does
_STEP = 8  # lengths are padded up to a multiple, so that few shapes occur


def padded_length(length: int) -> int:
    """The length a batch with this longest row is padded to."""
    return -(-length // _STEP) * _STEP


def plan(lengths: Sequence[int], tokens_per_batch: int = TOKENS_PER_BATCH) -> Iterator[npt.NDArray[np.int64]]:
    """Row numbers of each batch. Every row is in exactly one; a row longer than the budget is alone."""
    order = np.argsort(np.asarray(lengths, np.int64), kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        # lengths ascend, so the row at `end` would be the longest of its batch
        if end == len(order) or padded_length(lengths[order[end]]) * (end + 1 - start) > tokens_per_batch:
            yield order[start:end]
            start = end

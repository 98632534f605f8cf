"""An update's rows as micro-batches of few shapes: sorted by length, padded to a bucket, filled up with longer rows.

Which rows an update has is `order`'s affair; how they are cut into micro-batches changes no gradient, for the loss is
weighted by the rows that are real. Each bucket has one shape, so there is one compiled gradient a bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cappy_select.train.order import Rows, rows_of_update
from cappy_select.train.tokens import TokenSet

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


class MicroBatch(NamedTuple):
    """Pairs of one shape; `units` of `width` rows each (a unit is a pair, or the pairs of one group)."""

    ids: Ints  # [units * width, tokens]
    types: Ints  # [units * width, tokens]
    lengths: Ints  # [units * width]
    scores: Floats  # [units, width]
    weights: Floats  # [units, width], 1 for a real row and 0 for an empty one


class Batches:
    """The micro-batches of each update.

    Args:
        tokens: The pairs.
        batch: Units an update: pairs, or groups.
        micro_tokens: Tokens of a micro-batch at most, padding included; a bucket's rows follow from it.
        buckets: Lengths that rows are padded to, ascending; the last one must hold the longest pair.
        pad: The padding's token id.
        seed: Of the order.
        width: Rows of a group that a unit has, one of the best and others drawn anew each epoch; 1: units are pairs.
        multiple: Rows of a micro-batch are a multiple of this: the devices that share it.
    """

    def __init__(
        self,
        tokens: TokenSet,
        *,
        batch: int,
        micro_tokens: int,
        buckets: Sequence[int],
        pad: int,
        seed: int,
        width: int = 1,
        multiple: int = 1,
    ) -> None:
        self._tokens, self._batch, self._pad, self._seed, self._width = tokens, batch, pad, seed, width
        self._buckets = np.array(sorted(buckets))
        fitting = {int(length): micro_tokens // (int(length) * width) for length in self._buckets}
        self._units = {length: max(1, units // multiple) * multiple for length, units in fitting.items()}
        self._lengths = tokens.lengths

    @property
    def units(self) -> int:
        """How many there are: an epoch."""
        return len(self._tokens) if self._width == 1 else len(self._tokens.groups) - 1

    def of_update(self, update: int) -> list[MicroBatch]:
        """The micro-batches of an update, the shortest first; their weights add up to its real rows."""
        units = rows_of_update(update, self._batch, self.units, self._seed)
        return [micro for _, micro in self.cut(self._rows(units, update))]

    def cut(self, rows: Rows) -> Iterator[tuple[Rows, MicroBatch]]:
        """Rows, int64[units, width] with -1 where there is none, as micro-batches, each with the rows it is of."""
        longest = np.where(rows >= 0, self._lengths[np.maximum(rows, 0)], 0).max(axis=1)
        order = np.argsort(longest, kind="stable")
        rows, bucket = rows[order], self._buckets[np.searchsorted(self._buckets, longest[order])]
        start = 0
        while start < len(rows):
            tokens = int(bucket[start])
            here = int(np.searchsorted(bucket, tokens, "right")) - start
            units = self._units[tokens]
            if here < units and start + here < len(rows):  # too few: they are padded a little further instead
                bucket[start : start + here] = bucket[start + here]
                continue
            part = rows[start : start + min(here, units)]
            empty = np.full((units - len(part), part.shape[1]), -1, np.int64)
            yield part, self._filled(np.concatenate([part, empty]), tokens)
            start += len(part)

    def _rows(self, units: Rows, update: int) -> Rows:
        if self._width == 1:
            return units[:, None]
        starts, ends = self._tokens.groups[units], self._tokens.groups[units + 1]
        draw = np.random.default_rng([self._seed, update])
        rows = np.full((len(units), self._width), -1, np.int64)
        for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
            order = draw.permutation(end - start)
            best = np.argmax(self._tokens.scores[start:end][order])  # without it there may be nothing to compare
            taken = np.concatenate([order[best : best + 1], np.delete(order, best)])[: self._width]
            rows[place, : len(taken)] = start + np.sort(taken)
        return rows

    def _filled(self, rows: Rows, tokens: int) -> MicroBatch:
        ids, types, lengths = self._tokens.padded(rows.ravel(), tokens, self._pad)
        real = rows >= 0
        scores = np.where(real, self._tokens.scores[np.maximum(rows, 0)], 0).astype(np.float32)
        return MicroBatch(ids, types, lengths, scores, real.astype(np.float32))

"""How well a scorer does on validation pairs: its loss, and how often it picks a right response."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cappy_select.core.errors import DataError
from cappy_select.train.batches import Batches, MicroBatch
from cappy_select.train.order import Rows, permuted
from cappy_select.train.tokens import TokenSet


class Evaluation(NamedTuple):
    """`loss`: mean squared error. `accuracy`: of the groups with different labels, the share whose highest-scored
    response has the highest label; `chance`: that of a random pick; both None without such groups, whose number is
    `groups`. `rows`: pairs looked at."""

    loss: float
    accuracy: float | None
    chance: float | None
    groups: int
    rows: int

    @property
    def merit(self) -> tuple[float, float]:
        """The better one has more: selection accuracy, then the smaller loss."""
        return (self.accuracy or 0.0, -self.loss) if math.isfinite(self.loss) else (-1.0, 0.0)


def best_of(evaluations: Mapping[int, Evaluation]) -> int:
    """The update of the best one; the first wins a tie."""
    return max(evaluations, key=lambda update: evaluations[update].merit)


class Validation:
    """The validation pairs that are looked at: whole groups, drawn by `seed`, of `rows` rows or just more."""

    def __init__(self, tokens: TokenSet, rows: int | None, seed: int) -> None:
        groups = len(tokens.groups) - 1
        drawn = permuted(np.arange(groups), groups, seed, 0)
        if rows is not None:
            sizes = np.cumsum(np.diff(tokens.groups)[drawn])
            drawn = drawn[: int(np.searchsorted(sizes, rows)) + 1]
        self._tokens = tokens
        self._groups = [(int(tokens.groups[group]), int(tokens.groups[group + 1])) for group in np.sort(drawn)]
        self._rows: Rows = np.concatenate([np.arange(start, end) for start, end in self._groups])

    def look(self, batches: Batches, scores_of: Callable[[MicroBatch], npt.NDArray[np.float32]]) -> Evaluation:
        """Evaluate what `scores_of` gives for micro-batches of one row a unit: float32[units, 1].

        Raises DataError when a score is no finite number: nothing could be said of such a scorer, and none is better.
        """
        scores = np.zeros(len(self._tokens), np.float32)
        for rows, micro in batches.cut(self._rows[:, None]):
            scores[rows[:, 0]] = scores_of(micro)[: len(rows), 0]
        lost = int(np.sum(~np.isfinite(scores[self._rows])))
        if lost:
            raise DataError(f"{lost} of the {len(self._rows)} scores of the validation pairs are no finite numbers")
        loss = float(np.mean(np.square(scores[self._rows] - self._tokens.scores[self._rows])))
        right, chance = [], []
        for start, end in self._groups:
            labels = np.asarray(self._tokens.scores[start:end])
            if labels.min() < labels.max():
                best = labels == labels.max()
                highest = scores[start:end] == scores[start:end].max()
                right.append(float(best[highest].mean()))  # of a tie its share: else the order of the rows would count
                chance.append(float(best.mean()))
        if not right:
            return Evaluation(loss, None, None, 0, len(self._rows))
        return Evaluation(loss, float(np.mean(right)), float(np.mean(chance)), len(right), len(self._rows))

"""95 % intervals by a paired bootstrap: differences are resampled, so what both sides share cancels out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Floats = npt.NDArray[np.float64]
DRAWS = 10_000
FEW = 10
_AT_ONCE = 2**22  # numbers of a block of resamples: 32 MB


class Interval(BaseModel):
    """A mean, and between what 95 % of the resampled means lie: None where one thing, which varies not, is all that
    could be resampled."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """In points of a hundred: `+3.1 (+1.2 to +5.0)`."""
        return f"{signed(100 * self.mean)} ({self.range()})"

    def range(self, digits: int = 1, scale: float = 100) -> str:
        """`+1.2 to +5.0`."""
        if self.low is None or self.high is None:
            return "no interval: one instance"
        return f"{signed(scale * self.low, digits)} to {signed(scale * self.high, digits)}"


def signed(value: float, digits: int = 1) -> str:
    """`+1.2`; never `-0.0`."""
    return f"{value:+z.{digits}f}"


def of_few(fewest: int, what: str = "instances") -> list[str]:
    """What a report says when its smallest stratum has so few things: nothing, or one remark."""
    if fewest >= FEW:
        return []
    return [f"The intervals are too narrow, or missing: they go by as few as {fewest} {what}, and need {FEW} or more."]


def paired(
    differences: Sequence[float] | Floats,
    groups: Sequence[Hashable] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """The mean of differences between two ways to do the same things, one for each thing.

    A resample takes as many things as there are, with replacement; as many groups, where things come in `groups` and
    those of one are not independent. One thing, or group, has no interval. Raises ValueError without differences.
    """
    values = np.asarray(differences, np.float64)
    if not len(values):
        raise ValueError("no differences to resample")
    names = range(len(values)) if groups is None else groups
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    if len(places) == 1:
        return Interval(mean=float(values.mean()), low=None, high=None)
    of = np.array([places[name] for name in names])
    gains, sizes = (np.bincount(of, each).astype(np.float64) for each in (values, np.ones(len(of))))
    return _interval(float(values.mean()), resampled(gains, sizes, draws=draws, seed=seed))


def stratified(strata: Sequence[tuple[float, Floats, Floats]]) -> Interval:
    """The sum over strata (tasks) of their shares times their means, each stratum resampled by itself: so that every
    one counts the same in all resamples. A stratum is its share, the gains of its things, and their weights.

    As many things as there are, drawn from n, have (n - 1) / n of the variance they should, which adds up over small
    strata: deviations are scaled up for it (Rao and Wu 1988). Where a stratum has one thing there is no interval."""
    total = float(sum(share * gains.sum() / weights.sum() for share, gains, weights in strata))
    if any(len(gains) == 1 for _, gains, _ in strata):
        return Interval(mean=total, low=None, high=None)
    deviations = np.zeros(DRAWS)
    for at, (share, gains, weights) in enumerate(strata):
        drawn = resampled(gains, weights, seed=(0, at)) - gains.sum() / weights.sum()
        deviations += share * np.sqrt(len(gains) / (len(gains) - 1)) * drawn
    return _interval(total, total + deviations)


def _interval(mean: float, drawn: Floats) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(mean=mean, low=float(low), high=float(high))


def resampled(gains: Floats, weights: Floats, *, draws: int = DRAWS, seed: int | Sequence[int] = 0) -> Floats:
    """float64[draws]: the sum of the gains over that of the weights, in each resample of the things they belong to."""
    random = np.random.default_rng(seed)
    count = len(gains)
    found = np.empty(draws)
    block = max(1, _AT_ONCE // count)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        counts = random.multinomial(count, np.full(count, 1 / count), size=size)
        found[start : start + size] = (counts @ gains) / (counts @ weights)
    return found

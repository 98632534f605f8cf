"""From scored candidates to an order, best first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from cappy_select.errors import InputError
from cappy_select.types import Candidate


@runtime_checkable
class Strategy(Protocol):
    """Orders candidates that can win. `name` is recorded in the Selection."""

    @property
    def name(self) -> str: ...

    def order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates, best first; every one has a finite score."""
        ...


class Argmax:
    """The highest score wins; of equal ones the earlier in request order (Cappy, section 3.3)."""

    name = "argmax"

    def order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Sorted by score, descending; stable."""
        return sorted(candidates, key=lambda candidate: (-_score(candidate), candidate.index))


def _score(candidate: Candidate) -> float:
    score = candidate.score
    if score is None or not math.isfinite(score):
        raise InputError(f"a candidate without a finite score can't be ordered: {candidate.model}, score {score}")
    return score

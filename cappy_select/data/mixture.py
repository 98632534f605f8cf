"""How many rows of each task: a mixture, and its share in each partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from cappy_select.core.errors import InputError

Mixture = Literal["proportional", "equal"] | dict[str, float]


def targets(
    available: Mapping[str, int], mixture: Mixture, *, cap: int | None, rows: int | None, rows_per_task: int | None
) -> dict[str, int]:
    """Rows to write of each task.

    Args:
        available: Rows that there are, by task.
        mixture: `proportional` to what there is (after the cap), `equal`, or weights by task; a task without a
            weight gets none.
        cap: At most so many rows of a task count (and, without `rows`, are written).
        rows: In all; None: as many as there are. More than there are means that rows are repeated.
        rows_per_task: Instead of a mixture: so many of each, as the paper's repository does.

    Raises InputError for a weight of a task that is not there.
    """
    if rows_per_task is not None:
        return dict.fromkeys(available, rows_per_task)
    capped = {task: min(count, cap or count) for task, count in available.items()}
    total = sum(capped.values()) if rows is None else rows
    if mixture == "proportional":
        weights: Mapping[str, float] = capped
    elif mixture == "equal":
        weights = dict.fromkeys(available, 1.0)
    else:
        if unknown := sorted(mixture.keys() - available.keys()):
            raise InputError(f"weights are given for {', '.join(unknown)}, of which there is no row")
        weights = {task: mixture.get(task, 0.0) for task in available}
    return dict(zip(available, apportioned(total, list(weights.values())), strict=True))


def apportioned(total: int, weights: Sequence[float]) -> list[int]:
    """`total` in whole parts as the weights have it (largest remainder; the earlier one on a tie)."""
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    exact = [total * weight / whole for weight in weights]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda place: (parts[place] - exact[place], place))
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts

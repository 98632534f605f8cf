"""Multiple choice without an LLM: the scorer picks among the choices of tasks that it was not trained on.

The measure of the paper: accuracy of a template, its mean over the templates of a task, and theirs over the tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.data.instances import Instance, read_instances
from cappy_select.data.records import Problems
from cappy_select.errors import InputError
from cappy_select.scorer import Scorer

Floats = npt.NDArray[np.float64]


class Accuracy(BaseModel):
    """The scorer's and the baselines', as fractions of 1.

    `majority` always takes the place among the choices that is right most often in the task, `longest` the longest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(description="rows")
    cappy: float
    chance: float
    majority: float
    longest: float


class TaskReport(Accuracy):
    """One task: means over its templates; the median and the quartiles are over them too."""

    task: str
    templates: int
    median: float
    quartiles: tuple[float, float]
    other: float | None = Field(None, description="the scorer that is compared with")


class Difference(BaseModel):
    """How much better than another scorer, with a 95 % interval: a paired bootstrap over the examples of each task, an
    example with all its templates at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scorer: str
    mean: float = Field(description="its mean over tasks")
    difference: float
    low: float
    high: float


class ZeroshotReport(Accuracy):
    """All tasks of some files: means over tasks."""

    scorer: str
    tasks: tuple[TaskReport, ...]
    against: Difference | None = None
    left_out: int = Field(description="rows without at least two choices of which some, not all, are right")
    cut_pairs: int = Field(description="pairs that did not fit the scorer's window")


def evaluate_zeroshot(
    paths: Sequence[str | Path],
    scorer: Scorer,
    *,
    against: Scorer | None = None,
    choices: tuple[int, int] = (2, 1_000_000),
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ZeroshotReport:
    """Score every choice of every row, and look how often the best one is right.

    Args:
        paths: Files of instances (`read_instances`) with `choices`; a row's right choices are its references.
        scorer: Whose picks are judged; the earlier choice wins a tie.
        against: A scorer to compare with, on the same rows.
        choices: Rows with so many choices only, from and to.
        limit: Only the first rows of each task.
        on_progress: Called with (pairs that became known in this step, pairs in all).

    Raises InputError when no row can be used.
    """
    rows, left_out = _usable(paths, choices, limit)
    pairs = [(row.instruction, choice) for row in rows for choice in row.choices or ()]
    total = len(pairs) * (1 if against is None else 2)
    ends = np.cumsum([len(row.choices or ()) for row in rows])[:-1]

    marks = [_rightness(row) for row in rows]

    def right(taken: Iterable[int]) -> Floats:
        """1 for each row of which the choice at that place is right."""
        return np.array([place < len(mark) and mark[place] for place, mark in zip(taken, marks, strict=True)], float)

    def picked(of: Scorer) -> tuple[Floats, int]:
        scored = of.score_detailed(pairs, on_progress=(lambda done: on_progress(done, total)) if on_progress else None)
        best = (int(np.argmax(np.nan_to_num(part, nan=-np.inf))) for part in np.split(scored.scores, ends))
        return right(best), int(np.count_nonzero(scored.cut))

    cappy, cut = picked(scorer)
    other = None if against is None else picked(against)[0]
    places: dict[str, Counter[int]] = {}
    for row, mark in zip(rows, marks, strict=True):
        places.setdefault(row.task, Counter()).update(place for place, is_right in enumerate(mark) if is_right)
    commonest = {task: counted.most_common(1)[0][0] for task, counted in places.items()}
    by_row = {
        "cappy": cappy,
        "chance": np.array([np.mean(mark) for mark in marks]),
        "majority": right(commonest[row.task] for row in rows),
        "longest": right(int(np.argmax([len(choice) for choice in row.choices or ()])) for row in rows),
    }
    by_task: dict[str, dict[str | None, list[int]]] = {}
    for number, row in enumerate(rows):
        by_task.setdefault(row.task, {}).setdefault(row.template, []).append(number)
    weights = np.zeros(len(rows))  # of a row in the mean over tasks
    tasks = []
    for task, templates in sorted(by_task.items()):
        members = list(templates.values())
        for numbers in members:
            weights[numbers] = 1 / len(numbers) / len(members) / len(by_task)
        first, median, third = np.quantile([cappy[numbers].mean() for numbers in members], [0.25, 0.5, 0.75])
        tasks.append(
            TaskReport(
                task=task,
                n=sum(map(len, members)),
                templates=len(members),
                median=float(median),
                quartiles=(float(first), float(third)),
                other=None if other is None else _mean(other[numbers].mean() for numbers in members),
                **{name: _mean(values[numbers].mean() for numbers in members) for name, values in by_row.items()},
            )
        )
    difference = None
    if against is not None and other is not None:
        difference = _difference(str(against.bundle), rows, cappy, other, weights)
    return ZeroshotReport(
        scorer=str(scorer.bundle),
        n=len(rows),
        tasks=tuple(tasks),
        against=difference,
        left_out=left_out,
        cut_pairs=cut,
        **{name: _mean(getattr(task, name) for task in tasks) for name in by_row},
    )


def _usable(paths: Sequence[str | Path], choices: tuple[int, int], limit: int | None) -> tuple[list[Instance], int]:
    rows, left_out, taken = [], 0, Counter[str]()
    for path in paths:
        problems = Problems(strict=True)
        for _, row in read_instances(path, problems):
            marks = _rightness(row)
            if not choices[0] <= len(marks) <= choices[1] or all(marks) or not any(marks):
                left_out += 1
            elif limit is None or taken[row.task] < limit:
                taken[row.task] += 1
                rows.append(row)
    if not rows:
        raise InputError(
            f"no row of {', '.join(map(str, paths))} has {choices[0]} to {choices[1]} choices, one a reference"
        )
    return rows, left_out


def _rightness(row: Instance) -> list[bool]:
    references = {text.strip() for text in row.references}
    return [choice.strip() in references for choice in row.choices or ()]


def _difference(
    name: str, rows: Sequence[Instance], right: Floats, other: Floats, weights: Floats, draws: int = 10_000
) -> Difference:
    """A resample takes as many examples of each task as it has, with replacement; its weights are scaled to the task's
    share, so that each task counts the same in every resample."""
    random = np.random.default_rng(0)
    examples: dict[str, dict[str, list[int]]] = {}
    for number, row in enumerate(rows):
        examples.setdefault(row.task, {}).setdefault(row.group or row.id, []).append(number)
    drawn = np.zeros(draws)
    for groups in examples.values():
        weight = np.array([weights[numbers].sum() for numbers in groups.values()])
        gain = np.array([(weights[numbers] * (right - other)[numbers]).sum() for numbers in groups.values()])
        counts = random.multinomial(len(weight), np.full(len(weight), 1 / len(weight)), size=draws)
        drawn += weight.sum() * (counts @ gain) / (counts @ weight)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Difference(
        scorer=name,
        mean=float((weights * other).sum()),
        difference=float((weights * (right - other)).sum()),
        low=float(low),
        high=float(high),
    )


def _mean(values: object) -> float:
    return float(np.mean(list(values)))  # type: ignore[call-overload]

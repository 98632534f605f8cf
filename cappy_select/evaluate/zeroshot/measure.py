"""How often the scorer's best choice is the right one, beside baselines, another scorer and other judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cappy_select.bundle.bundle import Bundle
from cappy_select.bundle.manifest import MODEL
from cappy_select.core.errors import InputError
from cappy_select.data.instances import Instance
from cappy_select.evaluate.intervals import Interval, stratified
from cappy_select.evaluate.paper import beside_paper
from cappy_select.evaluate.zeroshot.report import Difference, TaskReport, ZeroshotReport
from cappy_select.evaluate.zeroshot.tasks import rightness, usable
from cappy_select.scorer import Scorer

Floats = npt.NDArray[np.float64]
_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


class Judge(Protocol):
    """Something else that judges choices, to compare with: the choice it gives the most is taken."""

    @property
    def parameters(self) -> int | None:
        """How many it has, if known."""
        ...

    def judge(
        self, pairs: Sequence[tuple[str, str]], on_progress: Callable[[int], None] | None = None
    ) -> Mapping[str, Floats]:
        """Judge choices in one or several ways.

        Args:
            pairs: Of an instruction and a choice each.
            on_progress: Called with how many pairs became known in this step.

        Returns:
            By the name of a way to judge, a number for each pair: float64[pairs].
        """
        ...


def evaluate_zeroshot(
    instances: Iterable[Instance],
    scorer: Scorer,
    *,
    against: Scorer | None = None,
    judges: Sequence[Judge] = (),
    choices: tuple[int, int] = (2, 1_000_000),
    limit: int | None = None,
    parameters: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ZeroshotReport:
    """Score every choice of every row, and look how often the best one is right.

    Args:
        instances: With `choices`; a row's right choices are its references.
        scorer: Whose picks are judged; the earlier choice wins a tie.
        against: A scorer to compare with, on the same rows.
        judges: Others to compare with, on the same rows.
        choices: Rows with so many choices only, from and to.
        limit: Only the first rows of each task.
        parameters: Of the scorer; default: about, from the size of its graph.
        on_progress: Called with (pairs that became known in this step, pairs in all).

    Returns:
        The scorer's accuracies, beside those of what it is compared with.

    Raises:
        InputError: no row can be used, or two ways to judge have one name.
    """
    rows, left_out = usable(instances, choices, limit)
    marks = [rightness(row) for row in rows]
    pairs = [(row.instruction, choice) for row in rows for choice in row.choices or ()]
    total = len(pairs) * (1 + (against is not None) + len(judges))
    advance = (lambda done: on_progress(done, total)) if on_progress else None
    ends = np.cumsum(list(map(len, marks)))[:-1]

    def right(taken: Iterable[int]) -> Floats:
        return np.array([place < len(mark) and mark[place] for place, mark in zip(taken, marks, strict=True)], float)

    def picked(scores: npt.NDArray[np.floating[Any]]) -> Floats:
        parts = np.split(scores, ends)  # where there is no number nothing is picked
        return right(len(part) if np.isnan(part).all() else int(np.nanargmax(part)) for part in parts)

    scored = scorer.score_detailed(pairs, on_progress=advance)
    cappy = picked(scored.scores)
    other = None if against is None else picked(against.score_detailed(pairs, on_progress=advance).scores)
    judged: dict[str, tuple[int | None, Floats]] = {}
    for judge in judges:
        for name, scores in judge.judge(pairs, advance).items():
            if name in judged:
                raise InputError(f"two judges have the name {name!r}: give each another")
            judged[name] = judge.parameters, picked(scores)
    by_row = {"cappy": cappy, "chance": np.array([np.mean(mark) for mark in marks])}
    by_row |= {way: right(taken) for way, taken in _without_reading(rows, marks).items()}
    tasks, weights = _by_task(rows, by_row, other, {name: values for name, (_, values) in judged.items()})

    def difference(name: str, count: int | None, values: Floats) -> Difference:
        gain = _over_examples(rows, cappy - values, weights)
        mean = float((weights * values).sum())
        return Difference(scorer=name, parameters=count, mean=mean, difference=gain.mean, low=gain.low, high=gain.high)

    compared = tuple(difference(name, count, values) for name, (count, values) in judged.items())
    count = parameters or graph_parameters(scorer.bundle)
    models: list[tuple[str, int | None, dict[str, float]]] = [
        (_short(scorer.bundle), count, {task.task: task.cappy for task in tasks}),
        *((each.scorer, each.parameters, {t.task: t.baselines[each.scorer] for t in tasks}) for each in compared),
    ]
    difference_to = None
    if against is not None and other is not None:
        difference_to = difference(str(against.bundle), graph_parameters(against.bundle), other)
        accuracies = {task.task: task.other for task in tasks if task.other is not None}
        models.insert(1, (_short(against.bundle), difference_to.parameters, accuracies))
    return ZeroshotReport(
        scorer=str(scorer.bundle),
        parameters=count,
        n=len(rows),
        tasks=tasks,
        against=difference_to,
        baselines=compared,
        paper=beside_paper(models, {task.task: task.chance for task in tasks}),
        left_out=left_out,
        cut_pairs=int(np.count_nonzero(scored.cut)),
        unscored=sum(bool(np.isnan(part).all()) for part in np.split(scored.scores, ends)),
        fewest=min(Counter(task for task, _ in {(row.task, row.group or row.id) for row in rows}).values()),
        **{name: float(np.mean([getattr(task, name) for task in tasks])) for name in by_row},
    )


def _without_reading(rows: Sequence[Instance], marks: Sequence[list[bool]]) -> dict[str, list[int]]:
    """The places that the baselines take which know no language."""
    places: dict[str, Counter[int]] = {}
    for row, mark in zip(rows, marks, strict=True):
        places.setdefault(row.task, Counter()).update(place for place, is_right in enumerate(mark) if is_right)
    commonest = {task: counted.most_common(1)[0][0] for task, counted in places.items()}
    return {
        "majority": [commonest[row.task] for row in rows],
        "longest": [int(np.argmax([len(choice) for choice in row.choices or ()])) for row in rows],
    }


def _by_task(
    rows: Sequence[Instance], by_row: Mapping[str, Floats], other: Floats | None, judged: Mapping[str, Floats]
) -> tuple[tuple[TaskReport, ...], Floats]:
    """A report a task, and the weight of each row in the mean over tasks."""
    by_task: dict[str, dict[str | None, list[int]]] = {}
    for number, row in enumerate(rows):
        by_task.setdefault(row.task, {}).setdefault(row.template, []).append(number)
    weights = np.zeros(len(rows))
    tasks = []
    for task, templates in sorted(by_task.items()):
        members = list(templates.values())
        for numbers in members:
            weights[numbers] = 1 / len(numbers) / len(members) / len(by_task)
        first, median, third = np.quantile([by_row["cappy"][numbers].mean() for numbers in members], [0.25, 0.5, 0.75])
        tasks.append(
            TaskReport(
                task=task,
                n=sum(map(len, members)),
                templates=len(members),
                median=float(median),
                quartiles=(float(first), float(third)),
                other=None if other is None else _mean_of(other, members),
                baselines={name: _mean_of(values, members) for name, values in judged.items()},
                **{name: _mean_of(values, members) for name, values in by_row.items()},
            )
        )
    return tuple(tasks), weights


def _mean_of(values: Floats, members: Sequence[list[int]]) -> float:
    """The mean over templates of their means."""
    return float(np.mean([values[numbers].mean() for numbers in members]))


def _over_examples(rows: Sequence[Instance], gains: Floats, weights: Floats) -> Interval:
    """A resample takes as many examples of each task as it has, with replacement, each with all its templates."""
    examples: dict[str, dict[str, list[int]]] = {}
    for number, row in enumerate(rows):
        examples.setdefault(row.task, {}).setdefault(row.group or row.id, []).append(number)
    strata = []
    for groups in examples.values():
        weight = np.array([weights[numbers].sum() for numbers in groups.values()])
        gain = np.array([(weights[numbers] * gains[numbers]).sum() for numbers in groups.values()])
        strata.append((float(weight.sum()), gain, weight))
    return stratified(strata)


def graph_parameters(bundle: Bundle) -> int:
    """About how many parameters a bundle has: the bytes of its graph by those of a weight of its precision.

    Args:
        bundle: A scorer's.

    Returns:
        Their number.
    """
    return bundle.manifest.files[MODEL].size_bytes // _BYTES[bundle.manifest.precision]


def _short(bundle: Bundle) -> str:
    return f"{bundle.manifest.name} {bundle.manifest.version}"

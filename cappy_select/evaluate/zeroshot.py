"""Multiple choice without an LLM: the scorer picks among the choices of tasks that it was not trained on.

The measure of the paper: accuracy of a template, its mean over the templates of a task, and theirs over the tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.bundle.bundle import Bundle
from cappy_select.bundle.manifest import MODEL
from cappy_select.core.errors import DataError, InputError
from cappy_select.data.instances import Instance, read_instances
from cappy_select.data.readers.prompt_templates import FILE_NAME, load_templates
from cappy_select.data.readers.promptsource import read_promptsource
from cappy_select.data.records import Problems
from cappy_select.data.sources import ZEROSHOT, HubData, load_hub
from cappy_select.evaluate.intervals import Interval, of_few, signed, stratified
from cappy_select.evaluate.paper import PaperComparison, beside_paper, paper_picture, paper_table
from cappy_select.evaluate.report import Picture, Report, Table
from cappy_select.scorer import Scorer

Floats = npt.NDArray[np.float64]
LEFT_OUT = "not so many choices, or none of them, or each, a reference"
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
        """By the name of a way to judge, a number for each (instruction, choice) pair: float64[pairs]."""
        ...


class Accuracy(BaseModel):
    """The scorer's and the baselines', as fractions of 1.

    `majority` always takes the place among the choices that is right most often in the task, `longest` the longest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

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
    baselines: dict[str, float] = Field(default_factory=dict, description="other judges, by name")


class Difference(BaseModel):
    """How much better than another scorer, with a 95 % interval: a paired bootstrap over the examples of each task, an
    example with all its templates at a time; None where a task has a single one."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    scorer: str
    parameters: int | None
    mean: float = Field(description="its mean over tasks")
    difference: float
    low: float | None
    high: float | None


class ZeroshotReport(Accuracy):
    """All tasks of some instances: means over tasks."""

    scorer: str
    parameters: int
    tasks: tuple[TaskReport, ...]
    against: Difference | None = None
    baselines: tuple[Difference, ...] = ()
    paper: PaperComparison | None = Field(description="beside the paper's models, on the tasks that both have")
    left_out: int = Field(description="rows without at least two choices of which some, not all, are right")
    cut_pairs: int = Field(description="pairs that did not fit the scorer's window")
    unscored: int = Field(description="rows of which no choice got a number from the scorer: they count as wrong")
    fewest: int = Field(description="examples of the task with the fewest")


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

    Raises InputError when no row can be used, or two ways to judge have one name.
    """
    rows, left_out = _usable(instances, choices, limit)
    marks = [_rightness(row) for row in rows]
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


def read_files(paths: Sequence[str | Path]) -> Iterator[Instance]:
    """The instances of files (`read_instances`). Raises InputError at the first row that is none."""
    for path in paths:
        for _, row in read_instances(path, Problems(strict=True)):
            yield row


def read_paper_tasks(templates: str | Path, problems: Problems, *, copies: Path | None = None) -> Iterator[Instance]:
    """The paper's eleven tasks from the hub under PromptSource's templates, those of the original task alone.

    Args:
        templates: PromptSource's folder `templates`.
        problems: Gets the tasks that don't load, and rows that can't be rendered.
        copies: See `load_hub`.

    Raises DataError when the hub can't be reached, InputError when no task can be read, MissingExtra without
    `datasets`.
    """
    unreachable: list[HubData] = []
    found = False
    for name, data in ZEROSHOT.items():
        try:
            rendered_by = load_templates(Path(templates) / str(data.templates) / FILE_NAME)
        except InputError as error:
            problems.report(str(data), str(error))
            continue
        table = load_hub(data, problems, copies=copies, unreachable=unreachable)
        if unreachable:
            raise DataError(f"the hub can't be reached ({problems.listed[-1][1]}): give files of instances instead")
        if table is not None:
            for _, row in read_promptsource(table, problems, templates=rendered_by, turned_around=False, task=name):
                found = True
                yield row
    if not found:
        raise InputError(f"none of the paper's tasks can be read; the first: {': '.join(problems.listed[0])}")


def graph_parameters(bundle: Bundle) -> int:
    """About how many parameters a bundle has: the bytes of its graph by those of a weight of its precision."""
    return bundle.manifest.files[MODEL].size_bytes // _BYTES[bundle.manifest.precision]


def _usable(instances: Iterable[Instance], choices: tuple[int, int], limit: int | None) -> tuple[list[Instance], int]:
    rows, left_out, taken = [], 0, Counter[str]()
    for row in instances:
        marks = _rightness(row)
        if not choices[0] <= len(marks) <= choices[1] or all(marks) or not any(marks):
            left_out += 1
        elif limit is None or taken[row.task] < limit:
            taken[row.task] += 1
            rows.append(row)
    if not rows:
        raise InputError(f"no row has {choices[0]} to {choices[1]} choices, one a reference")
    return rows, left_out


def _rightness(row: Instance) -> list[bool]:
    references = {text.strip() for text in row.references}
    return [choice.strip() in references for choice in row.choices or ()]


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


def _short(bundle: Bundle) -> str:
    return f"{bundle.manifest.name} {bundle.manifest.version}"


def accuracy_table(report: ZeroshotReport) -> Table:
    """A task a row, then their mean."""
    other = [] if report.against is None else [report.against.scorer]
    names = ("rows", "cappy", "median", "quartiles", "chance", "majority", "longest", *other)
    rows = [
        (
            task.task, f"{task.n:,}", task.cappy, task.median,
            f"{100 * task.quartiles[0]:.1f}–{100 * task.quartiles[1]:.1f}",
            task.chance, task.majority, task.longest, *([task.other] if other else ()), *task.baselines.values(),
        )
        for task in report.tasks
    ]  # fmt: skip
    means = [each.mean for each in (report.against, *report.baselines) if each is not None]
    rows.append(
        ("mean", f"{report.n:,}", report.cappy, None, "", report.chance, report.majority, report.longest, *means)
    )
    return Table(
        "Accuracy",
        ("task", *names, *(each.scorer for each in report.baselines)),
        rows,
        f"Scorer: {report.scorer}. Accuracy is the mean over a task's templates, then over tasks; median and quartiles "
        "are over templates.",
    )


def notes(report: ZeroshotReport) -> list[str]:
    """What to know before one reads the numbers."""
    compared = report.against is not None or report.baselines
    said = of_few(report.fewest, "examples of a task") if compared else []
    if fixed := [task.task for task in report.tasks if task.majority == 1]:
        said.append(f"One place is always the right one, which is what majority takes: {', '.join(fixed)}.")
    if report.left_out:
        said.append(f"{report.left_out:,} rows were left out: {LEFT_OUT}.")
    if report.cut_pairs:
        said.append(f"{report.cut_pairs:,} pairs did not fit the scorer's window and were cut.")
    if report.unscored:
        said.append(f"To {report.unscored:,} rows the scorer gave no number: they count as wrong.")
    return said


def differences(report: ZeroshotReport) -> list[str]:
    """What the scorer gains on each that it is compared with, in words."""
    return [
        f"{signed(100 * each.difference)} points to {each.scorer} "
        f"(95 %: {Interval(mean=each.difference, low=each.low, high=each.high).range()})"
        for each in (report.against, *report.baselines)
        if each is not None
    ]


def zeroshot_report(report: ZeroshotReport) -> Report:
    """Tables and pictures, the paper's models beside ours."""
    return Report(
        title="Zero-shot multiple choice",
        remarks=[*differences(report), *notes(report)],
        tables=[accuracy_table(report), *([] if report.paper is None else [paper_table(report.paper)])],
        pictures=[*([] if report.paper is None else [paper_picture(report.paper)]), _picture(report.tasks)],
        data=report,
    )


def _picture(tasks: Sequence[TaskReport]) -> Picture:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        places = range(len(tasks))
        low, high = (np.array([100 * task.quartiles[side] for task in tasks]) for side in (0, 1))
        axes.hlines(places, low, high, color="tab:red", linewidth=6, alpha=0.35, label="quartiles over templates")
        for marker, color, label, values in (
            ("o", "tab:red", "median over templates", [task.median for task in tasks]),
            ("x", "black", "mean over templates", [task.cappy for task in tasks]),
            ("|", "tab:blue", "chance", [task.chance for task in tasks]),
        ):
            size = 14 if marker == "|" else 6
            axes.plot(
                [100 * value for value in values], places, marker, color=color, markersize=size, markeredgewidth=1.5,
                label=label,
            )  # fmt: skip
        axes.set_yticks(places, [task.task for task in tasks])
        axes.set_ylim(len(tasks) - 0.5, -0.5)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("accuracy, %")
        axes.grid(axis="x", alpha=0.3)
        figure.legend(frameon=False, loc="outside upper center", ncols=2)

    caption = "Accuracy per task: median and quartiles over its templates, beside chance."
    return Picture("tasks", caption, draw, (8.0, 1.8 + 0.32 * len(tasks)))

"""What a measurement found, and how it is told: figures, a table, words, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.evaluate.intervals import Interval, of_few, signed
from cappy_select.evaluate.paper import PaperComparison, paper_picture, paper_table
from cappy_select.evaluate.report import Picture, Report, Table
from cappy_select.evaluate.zeroshot.tasks import LEFT_OUT


class Accuracy(BaseModel):
    """The scorer's and the baselines', as fractions of 1.

    `majority` always takes the place among the choices that is right most often in the task, `longest` the longest.

    Attributes:
        n: Rows.
        cappy: The scorer.
        chance: A pick at random.
        majority: The place that is right most often.
        longest: The longest choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    n: int = Field(description="rows")
    cappy: float
    chance: float
    majority: float
    longest: float


class TaskReport(Accuracy):
    """One task: means over its templates; the median and the quartiles are over them too.

    Attributes:
        task: Its name.
        templates: How many it has.
        median: Of the scorer's accuracies.
        quartiles: The first and the third of them.
        other: The scorer that is compared with; None without.
        baselines: Other judges, by name.
    """

    task: str
    templates: int
    median: float
    quartiles: tuple[float, float]
    other: float | None = Field(None, description="the scorer that is compared with")
    baselines: dict[str, float] = Field(default_factory=dict, description="other judges, by name")


class Difference(BaseModel):
    """How much better than another scorer, with a 95 % interval: a paired bootstrap over the examples of each task, an
    example with all its templates at a time; None where a task has a single one.

    Attributes:
        scorer: The name of the other one.
        parameters: How many it has; None when unknown.
        mean: Its accuracy, the mean over tasks.
        difference: Ours minus its.
        low: Where the interval begins.
        high: Where it ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    scorer: str
    parameters: int | None
    mean: float = Field(description="its mean over tasks")
    difference: float
    low: float | None
    high: float | None


class ZeroshotReport(Accuracy):
    """All tasks of some instances: means over tasks.

    Attributes:
        scorer: Name, version, precision and digest of the scorer whose picks are judged.
        parameters: About how many it has.
        tasks: One report for each task.
        against: The other scorer; None without.
        baselines: The other judges.
        paper: Beside the paper's models; None when no task is among the paper's.
        left_out: Rows that could not be used.
        cut_pairs: Pairs that did not fit the scorer's window.
        unscored: Rows of which no choice got a number.
        fewest: Examples of the task with the fewest.
    """

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


def accuracy_table(report: ZeroshotReport) -> Table:
    """A task a row, then their mean.

    Args:
        report: From `evaluate_zeroshot`.

    Returns:
        Accuracies as fractions of 1; a column for each that is compared with.
    """
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
    """What to know before one reads the numbers.

    Args:
        report: From `evaluate_zeroshot`.

    Returns:
        A sentence or two for each thing; none when there is nothing to know.
    """
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
    """What the scorer gains on each that it is compared with, in words.

    Args:
        report: From `evaluate_zeroshot`.

    Returns:
        A line for each, with its 95 % interval.
    """
    return [
        f"{signed(100 * each.difference)} points to {each.scorer} "
        f"(95 %: {Interval(mean=each.difference, low=each.low, high=each.high).range()})"
        for each in (report.against, *report.baselines)
        if each is not None
    ]


def zeroshot_report(report: ZeroshotReport) -> Report:
    """Tables and pictures, the paper's models beside ours.

    Args:
        report: From `evaluate_zeroshot`.

    Returns:
        What `evaluate.report.write_report` takes.
    """
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

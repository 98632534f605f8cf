"""The measurement for people: tables, the paper's beside them, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from cappy_select.evaluate.bigbench.answers import KINDS
from cappy_select.evaluate.bigbench.measure import WAYS, BigbenchReport, ModelReport, TaskReport
from cappy_select.evaluate.intervals import of_few, signed
from cappy_select.evaluate.report import Cell, Picture, Report, Table

PAPER_SOURCE = "Tan et al. 2023, Cappy: Outperforming and Boosting Large Multi-Task LMs with a Small Scorer"
PAPER_SIZES = ("small", "base", "large", "xl", "xxl")
PAPER_ROWS: Mapping[str, tuple[float, ...]] = {
    "sampling": (11.43, 15.79, 19.62, 23.22, 25.73),
    "temperature 0.9": (12.01, 17.06, 20.05, 24.27, 27.10),
    "top-k 40": (11.52, 15.75, 19.76, 22.67, 25.82),
    "nucleus 0.95": (11.92, 16.62, 20.20, 24.17, 26.90),
    "beam 4": (16.40, 19.86, 23.48, 26.12, 29.66),
    "self-scoring (sum)": (15.08, 20.71, 24.12, 28.47, 32.02),
    "Cappy base": (23.36, 27.26, 29.83, 32.79, 36.63),
    "Cappy large": (24.45, 28.25, 30.75, 33.97, 36.93),
    "in-context + nucleus": (16.37, 20.46, 23.65, 28.64, 32.70),
    "in-context + self-scoring": (20.61, 24.42, 27.00, 32.56, 36.37),
    "in-context + Cappy large": (26.18, 28.65, 31.84, 36.41, 38.48),
}
"""Mean Rouge-L x 100 over the 45 tasks, by the size of FLAN-T5."""


def bigbench_report(found: BigbenchReport) -> Report:
    """The measurement as tables and pictures.

    Args:
        found: From `evaluate_bigbench`.

    Returns:
        A report to be written by `evaluate.report.write_report`; the paper's own figures stand beside it.
    """
    several = len(found.models) > 1
    tables = [ways_table(found)]
    for model in found.models:
        named = f"{model.model}: " if several else ""
        tables.append(differences_table(model, named))
        tables.append(_tasks_table(model, named))
    tables.append(_paper_table())
    pictures = [
        Picture(
            "methods",
            "Mean Rouge-L of what each way of picking gives, by language model",
            partial(_draw_ways, found.models),
            (max(8.0, 4.5 + 2.5 * len(found.models)), 4.5),
        )
    ]
    for number, model in enumerate(found.models, 1):
        if all(task.difference for task in model.tasks):
            pictures.append(
                Picture(
                    f"tasks-{number}" if several else "tasks",
                    f"{model.model}: Cappy minus self-scoring on each task, with 95 % intervals over its instances",
                    partial(_draw_tasks, model),
                    (8.0, 1.4 + 0.25 * len(model.tasks)),
                )
            )
    return Report(
        title=f"BIG-bench: picks of {found.scorer}",
        remarks=[
            *(_said(model) for model in found.models),
            "Quality is Rouge-L F1 (the best over the references), its mean over a task's instances, then over tasks. "
            "The ways to sample are judged by their first answer; the others pick among all answers to an instance, "
            "oracle and random among those without in-context examples.",
            *_apart(found),
            *([f"The other scorer is {found.against}."] if found.against else []),
            *([f"{found.left_out} instances have choices or no references: left out."] if found.left_out else []),
        ],
        tables=tables,
        pictures=pictures,
        data=found,
    )


def _apart(found: BigbenchReport) -> list[str]:
    """Whether the models stand side by side for different instances."""
    if all(model.n == found.common for model in found.models):
        return []
    counts = ", ".join(f"{model.model} {model.n:,}" for model in found.models)
    return [
        f"The models answered different instances ({counts}; {found.common:,} are common to all): a difference between "
        "models may be one between instances."
    ]


def ways_table(found: BigbenchReport) -> Table:
    """Mean quality of every way that some model has answers for.

    Args:
        found: From `evaluate_bigbench`.

    Returns:
        A row for each way, a column for each model; fractions of 1, None for a way that a model has no answers for.
    """
    ways = [way for way in WAYS if any(way in model.quality for model in found.models)]
    return Table(
        "Mean Rouge-L, x 100",
        ("picked by", *(model.model for model in found.models)),
        [(WAYS[way], *(model.quality.get(way) for model in found.models)) for way in ways],
    )


def differences_table(model: ModelReport, named: str = "") -> Table:
    """Cappy against each baseline, in points of Rouge-L x 100.

    Args:
        model: One of a `BigbenchReport`.
        named: Words that the title begins with, such as the model's name.

    Returns:
        A row for each baseline: the mean difference, and its 95 % intervals over tasks and over instances.
    """
    rows: list[Sequence[Cell]] = [
        (
            f"{WAYS[difference.way]} minus {WAYS[difference.minus]}",
            signed(100 * difference.mean),
            *(None if each is None else each.range() for each in (difference.tasks, difference.instances)),
        )
        for difference in model.differences
    ]
    return Table(
        f"{named}differences in points, with 95 % intervals",
        ("", "points", "over tasks", "over instances"),
        rows,
        "Over tasks: would it hold for other tasks? Over instances: for other instances of these tasks?",
    )


def _tasks_table(model: ModelReport, named: str) -> Table:
    ways = [way for way in ("nucleus", "self_sum", "cappy", "against", "oracle", "random") if way in model.quality]
    return Table(
        f"{named}by task",
        ("task", "instances", *(WAYS[way] for way in ways), "Cappy minus self-scoring"),
        [
            (
                task.task,
                str(task.n),
                *(task.quality[way] for way in ways),
                None if task.difference is None else str(task.difference),
            )
            for task in sorted(model.tasks, key=_gain, reverse=True)
        ],
    )


def _paper_table() -> Table:
    return Table(
        "The paper's: FLAN-T5, mean Rouge-L x 100",
        ("picked by", *PAPER_SIZES),
        [(name, *(f"{value:.2f}" for value in values)) for name, values in PAPER_ROWS.items()],
        f"{PAPER_SOURCE}. Over all 45 tasks, with FLAN-T5's answers: not comparable with other tasks or another LLM.",
    )


def _said(model: ModelReport) -> str:
    """Whose answers they are, and what they are answers to."""
    size = "" if model.parameters is None else f" ({model.parameters:,} parameters)"
    parts = [
        f"{model.model}{size} made {model.samples:,} samples; {model.missing:,} more did not come.",
        f"{model.n:,} instances of {len(model.tasks)} tasks count, {model.paper_tasks} of the paper's 45 tasks.",
    ]
    if model.incomplete:
        parts.append(f"{model.incomplete:,} instances were left out: they lack samples of a kind that others have.")
    if model.without_examples:
        parts.append(
            f"To {model.without_examples:,} instances nothing was answered with examples (they did not fit, or the "
            "calls failed): there the answers without count as those in context."
        )
    if model.unscorable:
        parts.append(f"{model.unscorable:,} instances score 0 whatever is answered: Rouge-L counts a-z and 0-9 only.")
    parts += of_few(min(len(model.tasks), *(task.n for task in model.tasks)), "tasks, or instances of a task")
    if model.unscored:
        parts.append(f"To {model.unscored:,} instances the scorer gave no number: its picks count as wrong there.")
    if model.cut_pairs:
        parts.append(f"{model.cut_pairs:,} pairs did not fit the scorer's window and were cut.")
    return " ".join(parts)


def _gain(task: TaskReport) -> float:
    return 0.0 if task.difference is None else task.difference.mean


_COLOURS = {
    **dict(zip(KINDS, ("#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5"), strict=True)),
    "self_sum": "#969696",
    "self_mean": "#cccccc",
    "cappy": "#d95f02",
    "against": "#fdae6b",
    "in_context_nucleus": "#a1d99b",
    "in_context_self_sum": "#41ab5d",
    "in_context_cappy": "#006d2c",
}


def _draw_ways(models: Sequence[ModelReport], figure: Any) -> None:
    """A group of bars a model, as in the paper's figure 2; lines where random picks and the oracle are."""
    axes = figure.subplots()
    ways = [way for way in _COLOURS if any(way in model.quality for model in models)]
    width = 0.84 / len(ways)
    for place, way in enumerate(ways):
        middles = np.arange(len(models)) + (place - (len(ways) - 1) / 2) * width
        heights = [100 * model.quality.get(way, np.nan) for model in models]
        bars = axes.bar(middles, heights, width * 0.92, color=_COLOURS[way], label=WAYS[way])
        labels = ["" if np.isnan(height) else f"{height:.1f}" for height in heights]
        axes.bar_label(bars, labels, fontsize=7, padding=3, rotation=90, bbox={"fc": "white", "ec": "none", "pad": 0.5})
    groups = np.arange(len(models))
    for way, style in (("oracle", "--"), ("random", ":")):
        heights = [100 * model.quality[way] for model in models]
        axes.hlines(heights, groups - 0.45, groups + 0.45, color="black", linestyle=style, linewidth=1, label=WAYS[way])
    axes.set_xticks(groups, [model.model for model in models])
    axes.set_xlim(-0.55, len(models) - 0.45)
    axes.set_ylabel("mean Rouge-L F1, × 100")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)


def _draw_tasks(model: ModelReport, figure: Any) -> None:
    axes = figure.subplots()
    tasks = sorted(model.tasks, key=_gain)
    gains = [task.difference for task in tasks if task.difference is not None]
    means = np.array([100 * gain.mean for gain in gains])
    low, high = (100 * np.array([getattr(gain, side) for gain in gains], float) for side in ("low", "high"))  # or NaN
    colours = [_COLOURS["cappy" if mean > 0 else "self_sum"] for mean in means]
    axes.barh(range(len(tasks)), means, 0.7, color=colours)
    sides = np.maximum([means - low, high - means], 0)  # a last digit can be below
    axes.errorbar(means, range(len(tasks)), xerr=sides, fmt="none", ecolor="#444444", elinewidth=0.8, capsize=2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(tasks)), [f"{task.task} ({task.n})" for task in tasks], fontsize=8)
    axes.set_ylim(-0.7, len(tasks) - 0.3)
    axes.set_xlabel("Cappy minus self-scoring (sum), points of Rouge-L × 100")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)

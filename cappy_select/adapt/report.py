"""What an adaptation is worth: on held-out instances, the quality of each way to pick one of the LLMs' answers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.ask.recorded import Recorded, RecordedInstance
from cappy_select.core.errors import InputError, UnscorableWarning
from cappy_select.data.instances import Instance
from cappy_select.data.labels import label_named
from cappy_select.evaluate.audits import Audited, AuditReport, audit, audit_picture, audit_tables
from cappy_select.evaluate.baselines import baselines_of, best_model_of
from cappy_select.evaluate.intervals import Interval, paired
from cappy_select.evaluate.report import Cell, Picture, Report, Table
from cappy_select.scorer import Scorer

Floats = npt.NDArray[np.float64]
FIRST, BASE, ADAPTED = "first", "base", "adapted"
RECORDED = "recorded"


class Way(BaseModel):
    """One way to pick: mean quality as a fraction of 1, and what it has over two others, with 95 % intervals."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str
    quality: float
    over_first: Interval
    over_base: Interval


class AdaptReport(BaseModel):
    """The ways to pick on the held-out instances, from the LLM alone to the best of what was sampled.

    Attributes:
        n: Held-out instances with answers of known quality.
        left_out: Held-out instances without.
        candidates: Mean number of answers an instance.
        quality_by: What quality goes by: `recorded`, the label that compared with the references, or both.
        best_model: The LLM whose first answers are best in the mean.
        ways: Each way to pick, with its mean quality as a fraction of 1.
        adapted_over: What the adapted scorer's picks have over each other way's, with 95 % intervals.
        base: An audit of the scorer before the adaptation.
        adapted: One of the adapted scorer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    n: int = Field(description="held-out instances with answers of known quality")
    left_out: int = Field(description="held-out instances without")
    candidates: float = Field(description="mean number of answers an instance")
    quality_by: str = Field(description="`recorded`, the label that compared with the references, or both")
    best_model: str
    ways: tuple[Way, ...]
    adapted_over: dict[str, Interval] = Field(description="the adapted scorer's picks over each other way's")
    base: AuditReport
    adapted: AuditReport

    def quality(self, name: str) -> float:
        """The mean quality of one way, as a fraction of 1.

        Args:
            name: Its name in `ways`, such as `first`, `base` or `adapted`.

        Returns:
            A value in [0, 1].

        Raises:
            InputError: there is no such way.
        """
        for way in self.ways:
            if way.name == name:
                return way.quality
        raise InputError(f"no way {name!r}: there are {', '.join(way.name for way in self.ways)}")


class Judged(NamedTuple):
    """Held-out instances with answers, the quality of each answer, and what says so; instances of one group are not
    independent."""

    rows: list[RecordedInstance]
    quality: list[Floats]
    groups: list[str]
    by: str


def judged(held_out: Sequence[tuple[Instance, Sequence[Recorded]]], label: str) -> Judged:
    """Those instances whose answers' quality is known: as it was recorded, else by their label.

    Raises InputError when there is none.
    """
    rows: list[RecordedInstance] = []
    quality: list[Floats] = []
    groups: list[str] = []
    told: set[bool] = set()  # whether it was recorded how right an answer is
    for instance, samples in held_out:
        known = _quality(instance, samples, label)
        if known is not None:
            told.update(sample.quality is not None for sample in samples)
            quality.append(known)
            groups.append(instance.group or instance.id)
            rows.append(
                RecordedInstance(
                    id=instance.id,
                    instruction=instance.instruction,
                    references=list(instance.references),
                    candidates=list(samples),
                )
            )
    if not rows:
        raise InputError(
            f"none of the {len(held_out)} held-out instances has answers whose quality is known: they need samples, "
            "and references or `correct`"
        )
    by = f"{RECORDED}, else {label}" if len(told) == 2 else RECORDED if True in told else label
    return Judged(rows, quality, groups, by)


def scores_of(
    rows: Sequence[RecordedInstance],
    scorers: Mapping[str, Scorer],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Each scorer's scores of the answers to each instance."""
    pairs = [(row.instruction, sample.said) for row in rows for sample in row.candidates]
    ends = np.cumsum([len(row.candidates) for row in rows])[:-1]
    total = len(pairs) * len(scorers)
    return {
        name: np.split(scorer.score_detailed(pairs, on_progress=lambda done: on_progress(done, total)).scores, ends)
        for name, scorer in scorers.items()
    }


def measure(
    held_out: Sequence[tuple[Instance, Sequence[Recorded]]],
    base: Scorer,
    adapted: Scorer,
    *,
    label: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[AdaptReport, list[dict[str, Any]]]:
    """Compare the picks of two scorers, and of nobody, among the answers to held-out instances.

    Returns the comparison, and for each instance its id and what each way's pick is worth. Raises InputError when no
    held-out instance has answers whose quality is known.
    """
    rows, quality, groups, by = judged(held_out, label)
    scores = scores_of(rows, {BASE: base, ADAPTED: adapted}, on_progress)
    ways = baselines_of(rows, quality, scores)
    if len({sample.model for row in rows for sample in row.candidates}) == 1:
        del ways["best_single"]  # it is the first
    lengths = [[len(sample.response) for sample in row.candidates] for row in rows]
    audits = {name: audit(list(map(Audited, found, lengths, quality))) for name, found in scores.items()}
    report = AdaptReport(
        n=len(rows),
        left_out=len(held_out) - len(rows),
        candidates=sum(map(len, quality)) / len(rows),
        quality_by=by,
        best_model=best_model_of(rows, quality),
        ways=tuple(
            Way(
                name=name,
                quality=float(values.mean()),
                over_first=paired(values - ways[FIRST], groups),
                over_base=paired(values - ways[BASE], groups),
            )
            for name, values in ways.items()
        ),
        adapted_over={name: paired(ways[ADAPTED] - values, groups) for name, values in ways.items() if name != ADAPTED},
        base=audits[BASE],
        adapted=audits[ADAPTED],
    )
    worth = [dict(zip(ways, values, strict=True)) for values in np.stack(list(ways.values()), axis=1).tolist()]
    return report, [{"id": row.id} | found for row, found in zip(rows, worth, strict=True)]


def _quality(instance: Instance, samples: Sequence[Recorded], label: str) -> Floats | None:
    """float64[samples]: what was said of each, else its label; None when that is not known of each."""
    known = [sample.quality for sample in samples]
    if None in known and instance.references:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnscorableWarning)  # `build` told
            labels = label_named(label)([sample.said for sample in samples], instance.references)
        known = [mark if value is None else value for value, mark in zip(known, labels, strict=True)]
    if not known or any(value is None or math.isnan(value) for value in known):
        return None
    return np.array(known, np.float64)


WORDS = {
    "first": "the first answer",
    "random": "a random answer (expected)",
    "longest": "the longest answer",
    "best_single": "the best single model, known afterwards",
    "vote": "the majority's answer",
    "self_sum": "self-scoring, sum",
    "self_mean": "self-scoring, mean",
    "base": "the scorer before",
    "base_vote": "score before × vote",
    "adapted": "the adapted scorer",
    "adapted_vote": "adapted score × vote",
    "oracle": "the best that was sampled (oracle)",
}


def way_rows(report: AdaptReport) -> tuple[list[str], list[list[str]]]:
    """The comparison as texts: columns, and a row a way."""

    def words(way: Way) -> str:
        model = f" ({report.best_model})" if way.name == "best_single" else ""
        return WORDS[way.name] + model

    return ["picked", "quality", "over the first (95 %)", "over the scorer before (95 %)"], [
        [
            words(way),
            f"{100 * way.quality:.1f} %",
            "" if way.name == FIRST else str(way.over_first),
            "" if way.name == BASE else str(way.over_base),
        ]
        for way in report.ways
    ]


def report_of(report: AdaptReport) -> Report:
    """For people: tables, the comparison as a picture, audits of both scorers."""
    columns, rows = way_rows(report)
    cells: list[Sequence[Cell]] = [*rows]
    over = [[WORDS[name], str(interval)] for name, interval in report.adapted_over.items()]
    compared = report.quality_by.replace(RECORDED, "what was recorded of each answer")
    measured = compared + ("" if report.quality_by == RECORDED else " against the references")
    remarks = [
        f"{report.n} held-out instances with {report.candidates:.1f} answers each; quality is by {measured}. No "
        "instance here shares its instruction or its group with one that was trained on. Intervals: paired "
        "bootstrap over instances, those of a group together.",
    ]
    if report.left_out:
        remarks.append(f"{report.left_out} held-out instances had no answer of known quality and are left out.")
    return Report(
        title="What the adapted scorer is worth",
        remarks=remarks,
        tables=[
            Table("Ways to pick an answer", columns, cells, "In points of a hundred where differences are."),
            Table("The adapted scorer over each other way", ["over", "points (95 %)"], over),
            *audit_tables(report.base, WORDS[BASE]),
            *audit_tables(report.adapted, WORDS[ADAPTED]),
        ],
        pictures=[
            Picture(
                "ways",
                "Quality of each way to pick an answer, with 95 % of its difference to the first.",
                _draw(report),
            ),
            audit_picture(report.adapted),
        ],
        data=report,
    )


def _draw(report: AdaptReport) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        ways = report.ways[::-1]
        values = [100 * way.quality for way in ways]
        colours = [
            {ADAPTED: "tab:green", BASE: "tab:blue", "oracle": "lightgrey"}.get(w.name, "tab:grey") for w in ways
        ]
        axes.barh([WORDS[way.name] for way in ways], values, color=colours)
        first = 100 * report.quality(FIRST)
        means = np.array([w.over_first.mean for w in ways])
        low, high = (np.array([getattr(w.over_first, side) for w in ways], float) for side in ("low", "high"))
        spread = 100 * np.maximum([means - low, high - means], 0)  # a last digit can be below; no number: no bar
        axes.errorbar(values, range(len(ways)), xerr=spread, fmt="none", ecolor="black", capsize=3)
        axes.axvline(first, color="black", linestyle=":", linewidth=1)
        for place, (way, value) in enumerate(zip(ways, values, strict=True)):
            ink = "black" if way.name == "oracle" else "white"
            axes.annotate(f"{value:.1f}", (0, place), (4, 0), textcoords="offset points", va="center", color=ink)
        axes.set_xlabel("quality, % (error bars: 95 % of the difference to the first answer)")
        axes.spines[["top", "right"]].set_visible(False)

    return draw

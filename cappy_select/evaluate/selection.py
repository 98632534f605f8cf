"""How good are the picks? Cappy's against random, first, longest, the best single model, a vote, the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.ask.recorded import RecordedInstance, read_recorded
from cappy_select.core.errors import InputError
from cappy_select.core.types import Candidate
from cappy_select.evaluate.audits import Audited, AuditReport, audit, audit_picture, audit_tables
from cappy_select.evaluate.baselines import baselines_of, best_model_of, final_answer
from cappy_select.evaluate.intervals import Interval, of_few, paired
from cappy_select.evaluate.report import Picture, Report, Table
from cappy_select.scorer import Scorer
from cappy_select.select.strategies import NAMES, SelfScore, Strategy, strategy_named

COMPARED = ("random", "first", "longest", "best_single", "vote")


class SelectionReport(BaseModel):
    """Mean quality of each way to pick one of the recorded answers, as a fraction of 1.

    Quality is correctness, or a human rating scaled to [0, 1]. `random` is the expectation; `vote` is None
    where most instances have no two answers alike. `strategies` has what was asked for by name; None where
    the file lacks what a strategy goes by (log-probabilities, costs).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    file: str
    scorer: str
    n: int = Field(description="instances")
    candidates: float = Field(description="mean number of answers an instance")
    random: float
    first: float
    longest: float
    best_single: float
    best_model: str
    vote: float | None
    cappy: float
    oracle: float
    strategies: dict[str, float | None] = Field(default_factory=dict)
    gains: dict[str, Interval] = Field(description="cappy minus each other way, instance by instance, with 95 %")
    audit: AuditReport
    cut_pairs: int = Field(description="pairs that did not fit the scorer's window")
    unscored: int = Field(description="instances of which no answer got a number from the scorer: its picks are wrong")


def evaluate_selection(
    path: str | Path,
    scorer: Scorer,
    *,
    limit: int | None = None,
    strategies: Sequence[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> SelectionReport:
    """Score every recorded answer of a file and compare the picks.

    Args:
        path: JSONL (plain or `.gz`) of `id, instruction, candidates[{model, response, correct | human}]`.
        scorer: Whose picks are judged.
        limit: Only the first instances.
        strategies: Names of strategies to compare too; `all` for every one. Votes compare the final answers
            (`final_answer`); `quality_cost` takes one point of score a dollar.
        on_progress: Called with (pairs that became known in this step, pairs in all).

    Raises InputError, naming the file, when an answer has no `correct` and no `human`.
    """
    names = NAMES if "all" in strategies else tuple(strategies)
    chosen = {name: strategy_named(name, extract=_recorded_answer) for name in names}
    instances = _instances(path, limit)
    pairs = [(row.instruction, answer.said) for row in instances for answer in row.candidates]
    total = len(pairs)
    scored = scorer.score_detailed(pairs, on_progress=(lambda done: on_progress(done, total)) if on_progress else None)
    per_instance = np.split(scored.scores, np.cumsum([len(row.candidates) for row in instances])[:-1])
    quality = [np.array([answer.quality for answer in row.candidates], float) for row in instances]
    ways = baselines_of(instances, quality, {"cappy": per_instance})
    lengths = [[len(answer.response) for answer in row.candidates] for row in instances]
    candidates = (
        [_candidates(row, scores) for row, scores in zip(instances, per_instance, strict=True)] if chosen else []
    )
    means = {way: float(ways[way].mean()) if way in ways else None for way in _WAYS}
    return SelectionReport(
        file=Path(path).name,
        scorer=str(scorer.bundle),
        n=len(instances),
        candidates=len(pairs) / len(instances),
        best_model=best_model_of(instances, quality),
        strategies={
            name: None if name == "vote" and means["vote"] is None else _quality_of(strategy, candidates, quality)
            for name, strategy in chosen.items()
        },
        gains={way: paired(ways["cappy"] - ways[way]) for way in COMPARED if way in ways},
        audit=audit([Audited(s, each, q) for s, each, q in zip(per_instance, lengths, quality, strict=True)]),
        cut_pairs=int(np.count_nonzero(scored.cut)),
        unscored=sum(bool(np.isnan(scores).all()) for scores in per_instance),
        **means,
    )


def _instances(path: str | Path, limit: int | None) -> list[RecordedInstance]:
    instances: list[RecordedInstance] = []
    for row in read_recorded(path):
        if limit is not None and len(instances) >= limit:
            break
        if not row.candidates:
            raise InputError(f"{path}: instance {row.id!r} has no candidates")
        for answer in row.candidates:
            if answer.quality is None:
                raise InputError(
                    f"{path}: instance {row.id!r}: the answer of {answer.model!r} has neither 'correct' nor 'human'"
                )
        instances.append(row)
    if not instances:
        raise InputError(f"{path} holds no instances")
    return instances


def _candidates(row: RecordedInstance, scores: npt.NDArray[np.float32]) -> list[Candidate]:
    return [
        Candidate(
            model=answer.model,
            message={"role": "assistant", "content": answer.response},
            index=index,
            score=score if np.isfinite(score) else None,
            cost=answer.cost,
            latency_s=answer.latency_s,
            logprob_sum=answer.logprob_sum,
            logprob_mean=answer.logprob_mean,
            response_fields={"answer": final_answer(answer, row.references)},
        )
        for index, (answer, score) in enumerate(zip(row.candidates, scores.tolist(), strict=True))
    ]


def _recorded_answer(candidate: Candidate) -> str:
    return str(candidate.response_fields["answer"])


def _quality_of(
    strategy: Strategy, candidates: Sequence[list[Candidate]], quality: Sequence[npt.NDArray[np.float64]]
) -> float | None:
    """Mean quality of a strategy's picks; None when an answer lacks what the strategy needs."""
    everyone = [candidate for row in candidates for candidate in row]
    if isinstance(strategy, SelfScore) and any(strategy.likelihood(candidate) is None for candidate in everyone):
        return None
    if strategy.name == "quality_cost" and any(candidate.cost is None for candidate in everyone):
        return None
    able = [[candidate for candidate in row if candidate.score is not None] for row in candidates]
    picks = [q[strategy.order(row)[0].index] if row else 0.0 for row, q in zip(able, quality, strict=True)]
    return float(np.mean(picks))


_WAYS = {
    "random": "random (expected)",
    "first": "first",
    "longest": "longest",
    "best_single": "best single",
    "vote": "majority vote",
    "cappy": "cappy",
    "oracle": "oracle",
}


def selection_table(report: SelectionReport) -> Table:
    """A way to pick a row: what it gets, and how much more or less Cappy does."""

    def row(way: str, name: str) -> tuple[str, str | float, str]:
        value, gain = getattr(report, way), report.gains.get(way)
        return name, "no majority in most" if value is None else value, "" if gain is None else str(gain)

    names = _WAYS | {"best_single": f"best single ({report.best_model})"}
    rows = [row(way, name) for way, name in names.items()]
    rows[-1:-1] = [
        (f"strategy {name}", _unknown(name) if value is None else value, "")
        for name, value in report.strategies.items()
    ]
    remarks = [
        f"Scorer: {report.scorer}.",
        "The best single model is known only afterwards; where it has no answer it counts as wrong.",
        *notes(report),
    ]
    return Table(
        f"{report.file}: {report.n} instances, {report.candidates:.1f} candidates each",
        ("picked by", "quality", "cappy's gain in points, 95 %"),
        rows,
        " ".join(remarks),
    )


def notes(report: SelectionReport) -> list[str]:
    """What to know before one reads the numbers."""
    said = of_few(report.n, "instances")
    if report.cut_pairs:
        said.append(f"{report.cut_pairs} pairs did not fit the scorer's window and were cut.")
    if report.unscored:
        said.append(f"To {report.unscored} instances the scorer gave no number: its pick counts as wrong there.")
    return said


def _unknown(strategy: str) -> str:
    if "vote" in strategy:
        return "no majority in most"
    return "no costs recorded" if "cost" in strategy else "no log-probabilities recorded"


def selection_report(reports: Sequence[SelectionReport]) -> Report:
    """All files on one page: the picks of each, then the audits of the scorer on each."""
    names = [f"audit-{number}" if len(reports) > 1 else "audit" for number in range(1, len(reports) + 1)]
    return Report(
        title="Selection among recorded answers",
        tables=[
            *map(selection_table, reports),
            *(table for report in reports for table in audit_tables(report.audit, report.file)),
        ],
        pictures=[
            _picture(reports),
            *(audit_picture(report.audit, name, report.file) for report, name in zip(reports, names, strict=True)),
        ],
        data={"files": [report.model_dump(mode="json") for report in reports]},
    )


def _picture(reports: Sequence[SelectionReport]) -> Picture:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        colors = dict(zip(_WAYS, ("0.8", "0.65", "0.5", "tab:blue", "tab:cyan", "tab:red", "tab:green"), strict=True))
        height = 0.8 / len(_WAYS)
        for shift, (way, label) in zip(np.arange(-0.4 + height / 2, 0.4, height), _WAYS.items(), strict=True):
            known = [(place, getattr(report, way)) for place, report in enumerate(reports)]
            bars_of = [(place + shift, 100 * value) for place, value in known if value is not None]
            if bars_of:
                bars = axes.barh(*zip(*bars_of, strict=True), height=height, color=colors[way], label=label)
                axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
        axes.set_yticks(range(len(reports)), [report.file for report in reports])
        axes.set_ylim(len(reports) - 0.5, -0.5)  # the first file, and of each the first way, on top
        axes.set_xlim(0, 108)
        axes.set_xlabel("quality of the picks, %")
        figure.legend(frameon=False, loc="outside upper center", ncols=4)

    return Picture("selection", "Quality of each way to pick.", draw, (8.0, 1.6 + 1.3 * len(reports)))

"""Quality against the number of samples: does the best-scored of more answers stay the better one?

The best of N answers is not drawn but computed, over all sets of N out of an instance's n: the answer of rank r (from
1, the best) is the best of a set with probability C(n - r, N - 1) / C(n, N).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.ask.recorded import Recorded, RecordedInstance, read_recorded
from cappy_select.core.errors import InputError, UnscorableWarning
from cappy_select.data.formats import is_rows
from cappy_select.data.labels import Label, label_named
from cappy_select.data.store import SampleStore
from cappy_select.evaluate.intervals import Interval, of_few, paired
from cappy_select.evaluate.report import Picture, Report, Table
from cappy_select.scorer import Scorer

Floats = npt.NDArray[np.float64]


class Point(BaseModel):
    """Expectations over all sets of `samples` answers; `self_scoring` is None without log-likelihoods.

    `score` is the mean score of Cappy's pick, in the scorer's own units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    samples: int
    cappy: float
    self_scoring: float | None
    random: float
    oracle: float
    score: float


class ScalingReport(BaseModel):
    """The curve of one file, over the same instances at every number of samples.

    `fall` is the quality of Cappy's pick of all answers minus that at its peak, paired by instance: None when the peak
    is there. `verdict` says it in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    file: str
    scorer: str
    quality: str = Field(description="`recorded` (correct, human), or the label's name")
    n: int = Field(description="instances")
    models: int = Field(description="whose answers are pooled")
    candidates: int = Field(description="answers of each")
    left_out: int = Field(description="instances with another number of answers, or a score that is no number")
    in_context: int = Field(description="answers to prompts with examples, left out: the others are to the bare one")
    unscorable: int = Field(description="instances whose references have nothing that the label compares")
    points: tuple[Point, ...]
    peak: int = Field(description="the number of samples at which Cappy's pick is best")
    fall: Interval | None
    over_optimised: bool = Field(description="the score rises from the peak on, and quality falls beyond chance")
    verdict: str
    cut_pairs: int = Field(description="pairs that did not fit the scorer's window")


def evaluate_scaling(
    path: str | Path,
    scorer: Scorer,
    *,
    label: str = "rouge_l",
    models: Sequence[str] = (),
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ScalingReport:
    """The curve of a file of recorded answers or of a sample store.

    Args:
        path: JSONL as `evaluate_selection` reads it, or a store.
        scorer: Whose picks are judged.
        label: What answers are worth (`label_named`), unless all have `correct` or `human`.
        models: Answers of these only; none: of all.
        limit: Only the first instances.
        on_progress: Called with (pairs that became known in this step, pairs in all).

    Raises InputError when there is nothing to compare: no instance with two answers, or no references.
    """
    rows, size, left_out, in_context = _same_size(path, models, limit)
    quality, measured_by, unscorable = _quality(rows, label_named(label), path)  # [instances, answers]
    pairs = [(row.instruction, answer.said) for row in rows for answer in row.candidates]
    scored = scorer.score_detailed(
        pairs, on_progress=(lambda done: on_progress(done, len(pairs))) if on_progress else None
    )
    scores = scored.scores.astype(np.float64).reshape(-1, size)
    known = np.isfinite(scores).all(axis=1)
    if not known.any():
        raise InputError(f"{path}: the scorer {scorer.bundle} gave no number for any instance")
    rows = [rows[place] for place in np.flatnonzero(known)]
    quality, scores = quality[known], scores[known]
    likelihoods = [[answer.logprob_sum for answer in row.candidates] for row in rows]
    by_self = None if any(None in row for row in likelihoods) else np.array(likelihoods, np.float64)

    counts = steps(size)
    picked = {count: best_of(count, scores, quality) for count in counts}
    points = tuple(
        Point(
            samples=count,
            cappy=float(picked[count].mean()),
            self_scoring=None if by_self is None else float(best_of(count, by_self, quality).mean()),
            random=float(quality.mean()),
            oracle=float(best_of(count, quality, quality).mean()),
            score=float(best_of(count, scores, scores).mean()),
        )
        for count in counts
    )
    top = max(points, key=lambda point: (round(point.cappy, 12), -point.samples))
    fall = None if top.samples == size else paired(picked[size] - picked[top.samples])
    over = fall is not None and _is_below_0(fall) and points[-1].score > top.score
    return ScalingReport(
        file=Path(path).name,
        scorer=str(scorer.bundle),
        quality=measured_by,
        n=len(rows),
        models=len({answer.model for row in rows for answer in row.candidates}),
        candidates=size,
        left_out=left_out + int(np.count_nonzero(~known)),
        in_context=in_context,
        unscorable=unscorable,
        points=points,
        peak=top.samples,
        fall=fall,
        over_optimised=over,
        verdict=_verdict(top, points[-1], fall, over),
        cut_pairs=int(np.count_nonzero(scored.cut)),
    )


def steps(size: int) -> list[int]:
    """1, 2, 4, 8, ... and `size` itself."""
    return [*(2**power for power in range(size.bit_length()) if 2**power < size), size]


def best_of(count: int, by: Floats, values: Floats) -> Floats:
    """float64[instances]: the expected value of the answer that is highest in `by`, among `count` without replacement.

    Args:
        count: From 1 to the number of answers.
        by, values: [instances, answers]. The earlier answer wins a tie.
    """
    size = by.shape[1]
    chances = np.array([comb(size - rank, count - 1) / comb(size, count) for rank in range(1, size + 1)])
    order = np.argsort(-by, axis=1, kind="stable")
    found: Floats = np.take_along_axis(values, order, axis=1) @ chances
    return found


def _same_size(
    path: str | Path, models: Sequence[str], limit: int | None
) -> tuple[list[RecordedInstance], int, int, int]:
    """The instances with the number of answers that most have, that number, how many other instances there are, and
    how many answers to prompts with examples."""
    rows: list[RecordedInstance] = []
    in_context = 0
    for row in _recorded(path):
        if limit is not None and len(rows) >= limit:
            break
        candidates = [answer for answer in row.candidates if not models or answer.model in models]
        bare = [answer for answer in candidates if "prompt" not in answer.sampling]
        in_context += len(candidates) - len(bare)
        rows.append(row.model_copy(update={"candidates": bare}))
    sizes = Counter(len(row.candidates) for row in rows if len(row.candidates) > 1)
    if not sizes:
        of = f" of {', '.join(models)}" if models else ""
        raise InputError(f"{path}: no instance has two answers{of}: there is nothing to pick among")
    size = max(sizes, key=lambda size: (sizes[size], size))
    same = [row for row in rows if len(row.candidates) == size]
    return same, size, len(rows) - len(same), in_context


def _recorded(path: str | Path) -> Iterator[RecordedInstance]:
    if is_rows(path):
        yield from read_recorded(path)
        return
    with SampleStore(path) as store:
        for instance, stored in store.instances():
            answers: list[Recorded] = [one.sample for one in sorted(stored)]  # in the order in which they came
            yield RecordedInstance(
                id=instance.id,
                instruction=instance.instruction,
                references=list(instance.references),
                candidates=answers,
            )


def _quality(rows: Sequence[RecordedInstance], label: Label, path: str | Path) -> tuple[Floats, str, int]:
    """Of every answer; what says so; and how many instances have references that it can't compare."""
    recorded = [[answer.quality for answer in row.candidates] for row in rows]
    if not any(None in row for row in recorded):
        return np.array(recorded, np.float64), "recorded", 0
    if bare := next((row.id for row in rows if not row.references), None):
        raise InputError(f"{path}: instance {bare!r} has answers without 'correct' or 'human', and no references")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnscorableWarning)  # the report counts them
        quality = np.array([label([a.said for a in row.candidates], row.references) for row in rows])
        return quality, label.name, sum(not any(label(row.references, row.references)) for row in rows)


def _is_below_0(fall: Interval) -> bool:
    return fall.high is not None and fall.high < 0


def _verdict(top: Point, last: Point, fall: Interval | None, over: bool) -> str:
    if fall is None:
        return f"No over-optimisation: quality is highest with all {last.samples} samples."
    change = f"from {top.samples} to {last.samples} samples quality changes by {fall} points"
    scores = f"while the pick's score goes from {top.score:.3f} to {last.score:.3f}"
    if over:
        return f"Over-optimisation: {change}, {scores}."
    if _is_below_0(fall):
        return f"No over-optimisation, for the score does not rise with it: {change}, {scores}."
    why = "one instance tells nothing" if fall.high is None else "the interval includes 0"
    return f"No over-optimisation beyond chance: {change}, {scores}; {why}."


# ---------------------------------------------------------------- the report


def scaling_report(found: Sequence[ScalingReport]) -> Report:
    """A table and a picture for each file."""
    return Report(
        title=f"Quality against the number of samples, picks of {found[0].scorer}",
        remarks=[
            *(f"{one.file}: {_said(one)} {one.verdict}" for one in found),
            "Expected quality of the pick among N of an instance's answers, drawn without replacement: computed over "
            "all sets, not drawn. The peak is looked for on the same instances, which makes a fall after it likelier.",
        ],
        tables=[scaling_table(one) for one in found],
        pictures=[
            Picture(
                "scaling" if len(found) == 1 else f"scaling-{number}",
                f"{one.file}: expected quality, and score of Cappy's pick, against the number of samples",
                partial(_draw, one),
                (8.0, 6.5),
            )
            for number, one in enumerate(found, 1)
        ],
        data={"files": [one.model_dump(mode="json") for one in found]},
    )


def scaling_table(found: ScalingReport) -> Table:
    """A row for each number of samples."""
    return Table(
        f"{found.file}: {found.n} instances with {found.candidates} answers each",
        ("samples", "Cappy", "self-scoring", "random", "oracle", "score of the pick"),
        [
            (str(point.samples), point.cappy, point.self_scoring, point.random, point.oracle, f"{point.score:.3f}")
            for point in found.points
        ],
    )


def _said(found: ScalingReport) -> str:
    how = "as recorded" if found.quality == "recorded" else f"by the label {found.quality}"
    pooled = f" Answers of {found.models} models are pooled." if found.models > 1 else ""
    parts = [f"quality {how}.{pooled}", *of_few(found.n, "instances")]
    if found.in_context:
        parts.append(f"{found.in_context} answers to prompts with examples were left out.")
    if found.unscorable:
        parts.append(f"{found.unscorable} instances score 0 whatever is answered: the label can't read the references.")
    if found.left_out:
        parts.append(f"{found.left_out} instances without exactly {found.candidates} scored answers were left out.")
    if found.cut_pairs:
        parts.append(f"{found.cut_pairs} pairs did not fit the scorer's window and were cut.")
    return " ".join(parts)


def _draw(found: ScalingReport, figure: Any) -> None:
    """Above quality, below the score of Cappy's pick, as in the paper's figure 5."""
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    counts = [point.samples for point in found.points]
    lines = (
        ("oracle", [point.oracle for point in found.points], "black", "--"),
        ("Cappy", [point.cappy for point in found.points], "#d95f02", "o-"),
        ("self-scoring (sum)", [point.self_scoring for point in found.points], "#2171b5", "s-"),
        ("random", [point.random for point in found.points], "grey", ":"),
    )
    for name, values, colour, style in lines:
        if None not in values:
            above.plot(counts, [100 * (value or 0.0) for value in values], style, color=colour, label=name)
    above.set_ylabel("expected quality of the pick, × 100")
    below.plot(counts, [point.score for point in found.points], "o-", color="#d95f02")
    below.set_ylabel("mean score of\nCappy's pick")
    below.set_xscale("log", base=2)
    apart = [count for count in counts if count == counts[-1] or counts[-1] / count > 1.3]  # 16 and 17 would overlap
    below.set_xticks(apart, [str(count) for count in apart])
    below.minorticks_off()
    below.set_xlabel("number of samples N")
    above.axvline(found.peak, color="#d95f02", linewidth=1, linestyle=":", label="Cappy's peak")
    figure.legend(loc="outside right upper", frameon=False)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)

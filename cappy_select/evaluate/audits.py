"""What a scorer goes by: does it like length for its own sake, agree with the label, mean what it says?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.evaluate.intervals import Interval, paired, signed
from cappy_select.evaluate.report import Picture, Table

Floats = npt.NDArray[np.float64]
Numbers = Sequence[float] | npt.NDArray[np.floating[Any]]
BANDS, BINS = 5, 10


@dataclass(frozen=True)
class Audited:
    """The answers to one prompt: the score of each, its length (characters or tokens), its quality in [0, 1].

    Answers whose score is not finite are passed over.
    """

    scores: Numbers
    lengths: Numbers
    quality: Numbers


class LengthBias(BaseModel):
    """Over the prompts whose answers differ in score, length and quality: only those can tell.

    Correlations are Spearman's within a prompt, averaged over prompts. Where several answers are best, or the
    scorer's, each counts for its share.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    prompts: int
    score: float = Field(description="correlation of score and length")
    quality: float = Field(description="correlation of quality and length")
    bias: Interval = Field(description="the first minus the second: above 0, length is liked more than it is worth")
    longest_picked: float = Field(description="how often the scorer's pick is the longest")
    longest_best: float = Field(description="how often the best answer is")
    shortest_picked: float
    shortest_best: float


class Band(BaseModel):
    """The answers whose quality is from `low` to below `high` (the last one: and 1)."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    low: float
    high: float
    n: int
    share: float
    mean: float | None = Field(description="of their scores")
    spread: float | None = Field(description="standard deviation of their scores")


class Bin(BaseModel):
    """Answers of neighbouring scores: means."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    n: int
    score: float
    quality: float


class AuditReport(BaseModel):
    """What `audit` found; None where nothing varies."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    prompts: int
    answers: int = Field(description="with a finite score")
    length: LengthBias | None
    bands: tuple[Band, ...]
    pearson: float | None = Field(description="of score and quality, over all answers")
    spearman: float | None
    bins: tuple[Bin, ...] = Field(description="equally many answers each, by score")
    calibration_error: float | None = Field(description="mean distance of score, clipped to [0, 1], and quality")


def audit(groups: Sequence[Audited]) -> AuditReport:
    """Audit a scorer on answers of known quality.

    Raises ValueError when the three sequences of a group differ in length.
    """
    read = [_finite(group) for group in groups]
    scores, quality = (np.concatenate([np.empty(0), *(group[place] for group in read)]) for place in (0, 2))
    bands = np.minimum((np.clip(quality, 0, 1) * BANDS).astype(int), BANDS - 1)
    parts = [part for part in np.array_split(np.argsort(scores, kind="stable"), BINS) if len(part)]
    distances = [len(part) * abs(np.clip(scores[part], 0, 1).mean() - quality[part].mean()) for part in parts]
    return AuditReport(
        prompts=len(groups),
        answers=len(scores),
        length=_length_bias(read),
        bands=tuple(_band(number, scores[bands == number], len(scores)) for number in range(BANDS)),
        pearson=_correlation(scores, quality),
        spearman=_correlation(_ranks(scores), _ranks(quality)),
        bins=tuple(
            Bin(n=len(part), score=float(scores[part].mean()), quality=float(quality[part].mean())) for part in parts
        ),
        calibration_error=float(sum(distances) / len(scores)) if parts else None,
    )


def _finite(group: Audited) -> tuple[Floats, Floats, Floats]:
    scores, lengths, quality = (np.asarray(each, np.float64) for each in (group.scores, group.lengths, group.quality))
    if not len(scores) == len(lengths) == len(quality):
        raise ValueError(f"{len(scores)} scores, {len(lengths)} lengths and {len(quality)} qualities of one prompt")
    known = np.isfinite(scores)
    return scores[known], lengths[known], quality[known]


def _length_bias(groups: Sequence[tuple[Floats, Floats, Floats]]) -> LengthBias | None:
    telling = [group for group in groups if len(group[0]) and all(np.ptp(values) > 0 for values in group)]
    if not telling:
        return None
    of_score, of_quality = (
        np.array([_correlation(_ranks(group[place]), _ranks(group[1])) for group in telling], np.float64)
        for place in (0, 2)
    )

    def share(place: int, extreme: float) -> float:
        """How often the highest by score (0) or quality (2) is the longest (1) or the shortest (-1)."""
        found = [
            np.mean((extreme * group[1] == (extreme * group[1]).max())[group[place] == group[place].max()])
            for group in telling
        ]
        return float(np.mean(found))

    return LengthBias(
        prompts=len(telling),
        score=float(of_score.mean()),
        quality=float(of_quality.mean()),
        bias=paired(of_score - of_quality),
        longest_picked=share(0, 1),
        longest_best=share(2, 1),
        shortest_picked=share(0, -1),
        shortest_best=share(2, -1),
    )


def _band(number: int, scores: Floats, total: int) -> Band:
    return Band(
        low=number / BANDS,
        high=(number + 1) / BANDS,
        n=len(scores),
        share=len(scores) / max(total, 1),
        mean=float(scores.mean()) if len(scores) else None,
        spread=float(scores.std()) if len(scores) else None,
    )


def _ranks(values: Floats) -> Floats:
    """From 1; equal values have the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def _correlation(first: Floats, second: Floats) -> float | None:
    if not len(first) or not np.ptp(first) or not np.ptp(second):
        return None
    return float(np.corrcoef(first, second)[0, 1])


def audit_tables(report: AuditReport, of: str = "") -> list[Table]:
    """Three tables; `of` is whose answers they are, for the titles."""
    suffix = f": {of}" if of else ""
    length = report.length
    tables = []
    if length is not None:
        tables.append(
            Table(
                f"Length{suffix}",
                ("measure", "score", "quality"),
                [
                    ("correlation with length", _signed(length.score), _signed(length.quality)),
                    ("the pick, and the best, is the longest", length.longest_picked, length.longest_best),
                    ("the pick, and the best, is the shortest", length.shortest_picked, length.shortest_best),
                ],
                f"Spearman's correlation within a prompt, over the {length.prompts} prompts whose answers differ in "
                f"score, length and quality. Bias, the difference: {_signed(length.bias.mean)} "
                f"(95 %: {length.bias.range(2, 1)}).",
            )
        )
    tables.append(
        Table(
            f"Score by quality{suffix}",
            ("quality", "answers", "share", "mean score", "spread"),
            [
                (f"{band.low:.1f}–{band.high:.1f}", f"{band.n:,}", band.share, _plain(band.mean), _plain(band.spread))
                for band in report.bands
            ],
            f"Over all answers: Pearson {_signed(report.pearson)}, Spearman {_signed(report.spearman)}. "
            "Spread is the standard deviation.",
        )
    )
    error = report.calibration_error
    tables.append(
        Table(
            f"Calibration{suffix}",
            ("answers by score", "answers", "mean score", "mean quality"),
            [
                (f"{number}", f"{each.n:,}", _plain(each.score), _plain(each.quality))
                for number, each in enumerate(report.bins, 1)
            ],
            f"Expected calibration error of the score clipped to [0, 1]: {'–' if error is None else f'{error:.3f}'}.",
        )
    )
    return tables


def _signed(value: float | None) -> str:
    return "–" if value is None else signed(value, 2)


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def audit_picture(report: AuditReport, name: str = "audit", of: str = "") -> Picture:
    """One picture of three panels; `name` is its file's, `of` whose answers they are."""

    def draw(figure: Any) -> None:
        first, second, third = figure.subplots(1, 3)
        _draw_length(first, report.length)
        _draw_bands(second, report.bands)
        _draw_calibration(third, report.bins)

    caption = "Left: what length is to the scorer and what it is worth. Middle: the score by quality, with its spread. "
    return Picture(name, f"{of + '. ' if of else ''}{caption}Right: calibration.", draw, (12.0, 4.0))


def _draw_length(axes: Any, length: LengthBias | None) -> None:
    axes.set_title("Length")
    if length is None:
        axes.text(0.5, 0.5, "no prompt whose answers differ\nin score, length and quality", ha="center", va="center")
        axes.set_axis_off()
        return
    places = np.arange(3)
    for shift, values, label, color in (
        (-0.2, (length.score, length.longest_picked, length.shortest_picked), "score, pick", "tab:red"),
        (0.2, (length.quality, length.longest_best, length.shortest_best), "quality, best", "tab:grey"),
    ):
        bars = axes.bar(places + shift, values, 0.38, color=color, label=label)
        axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(places, ["correlation\nwith length", "is the\nlongest", "is the\nshortest"])
    axes.set_ylabel("correlation, or share of prompts")
    axes.margins(y=0.3)
    axes.legend(frameon=False, loc="upper center", ncols=2)


def _draw_bands(axes: Any, bands: Sequence[Band]) -> None:
    known = [band for band in bands if band.mean is not None]
    axes.errorbar(
        [(band.low + band.high) / 2 for band in known],
        [band.mean for band in known],
        yerr=[band.spread for band in known],
        fmt="o", capsize=4, color="tab:red",
    )  # fmt: skip
    axes.set_xticks(
        [(band.low + band.high) / 2 for band in bands],
        [f"{band.low:.1f}–{band.high:.1f}\n{band.share:.0%}" for band in bands],
    )
    axes.set_xlim(0, 1)
    axes.set_xlabel("quality, and share of the answers")
    axes.set_ylabel("score, mean and standard deviation")
    axes.set_title("Score by quality")


def _draw_calibration(axes: Any, bins: Sequence[Bin]) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="score = quality")
    axes.plot([each.score for each in bins], [each.quality for each in bins], "o-", color="tab:red", label="tenths")
    axes.set_xlabel("mean score of a tenth of the answers")
    axes.set_ylabel("their mean quality")
    axes.set_ylim(-0.05, 1.05)
    axes.set_title("Calibration")
    axes.legend(frameon=False)

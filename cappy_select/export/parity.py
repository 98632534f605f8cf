"""The parity check of an export: what it must keep of the checkpoint's scores, through the whole run-time path."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from cappy_select.ask.recorded import read_recorded
from cappy_select.bundle.bundle import Bundle
from cappy_select.bundle.manifest import Precision
from cappy_select.core.errors import ExportError, InputError
from cappy_select.export.checkpoint import Checkpoint
from cappy_select.export.graph import input_names
from cappy_select.scorer import Scorer


class Tolerance(NamedTuple):
    """The worst that a precision may do on the calibration pairs."""

    max_abs_diff: float  # of any score, in units of max(1, largest |score|)
    flips: float  # winners that may change, as a part of the groups whose first and second differ by > `MARGIN`


MARGIN = 0.01
_MIN_CLEAR_GROUPS = 10  # with fewer, one changed winner would be too much and none would say little
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(1e-4, 0.0),
    "fp16": Tolerance(0.01, 0.0),
    "int8": Tolerance(0.15, 0.01),
}

Groups = Sequence[tuple[str, Sequence[str]]]  # instructions, each with its candidate responses


def measure(
    bundle: Bundle,
    checkpoint: Checkpoint,
    precision: Precision,
    groups: Groups,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """The measurements for the manifest. Raises ExportError when a score changes too much, or too many winners do.

    One winner may always change where any may: in a set of 25 groups a single one is already 4 %.
    """
    pairs = [(instruction, response) for instruction, responses in groups for response in responses]
    expected = torch_scores(checkpoint, pairs, on_progress)
    found = Scorer(bundle, cache=False).score_detailed(pairs).scores
    difference = float(np.abs(expected - found).max())
    relative = difference / max(1.0, float(np.abs(expected).max()))
    kept = _winners_kept([len(responses) for _, responses in groups], expected, found)
    tolerance = TOLERANCES[precision]
    # Where no score moves by half the margin, no clear winner can change: then few groups, or none, will do.
    if precision != "fp32" and len(kept) < _MIN_CLEAR_GROUPS and not difference < MARGIN / 2:
        raise ExportError(
            f"{precision} can't be judged: in {len(kept)} of {len(groups)} groups of calibration answers the "
            f"checkpoint sees a best one (by more than {MARGIN}), {_MIN_CLEAR_GROUPS} are needed as scores change by "
            f"{difference:.2g}; export fp32, or bring more answers that it can tell apart (calibration)"
        )
    flips, allowed = kept.count(False), max(1, int(tolerance.flips * len(kept))) if tolerance.flips else 0
    if not relative <= tolerance.max_abs_diff or flips > allowed:  # NaN fails too
        raise ExportError(
            f"{precision} changes the scores too much: max |Δscore| {relative:.2g} (at most "
            f"{tolerance.max_abs_diff:g}), "
            f"{flips} of {len(kept)} winners changed (at most {allowed}): export in a higher precision"
        )
    return {
        "pairs": len(pairs),
        "clear_groups": len(kept),
        "max_abs_diff": difference,
        "winner_agreement": 1 - flips / len(kept) if kept else 1.0,
    }


def torch_scores(
    checkpoint: Checkpoint,
    pairs: list[tuple[str, str]],
    on_progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """The checkpoint's own scores, by transformers' tokenizer and torch: float32[pairs]."""
    scores = []
    for instruction, response in pairs:
        encoded = checkpoint.tokenizer(
            [instruction],  # the list form: the scalar one drops a separator beside an empty response
            [response],
            truncation="longest_first",
            max_length=checkpoint.max_length,
            return_tensors="pt",
            return_token_type_ids=True,
        )
        with torch.inference_mode():
            inputs = {name: encoded[name] for name in input_names(checkpoint.model)}
            scores.append(float(checkpoint.model(**inputs).logits[0, 0]))
        if on_progress:
            on_progress(1, len(pairs))
    return np.array(scores, np.float32)


def calibration_groups(path: str | Path | None) -> Groups:
    """The answers to measure on: those of a file of recorded answers, or our own small set.

    Raises InputError when the file can't be read or has no answers.
    """
    if path is None:
        lines = (Path(__file__).parent / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
        return [(row["instruction"], row["responses"]) for row in map(json.loads, lines)]
    groups = [(row.instruction, [answer.response for answer in row.candidates]) for row in read_recorded(path)]
    if not any(responses for _, responses in groups):
        raise InputError(f"{path} has no answers to measure on")
    return groups


def _winners_kept(sizes: list[int], expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> list[bool]:
    """Of every group with a clear winner: is it the winner still?"""
    kept, start = [], 0
    for size in sizes:
        theirs, ours = expected[start : start + size], found[start : start + size]
        start += size
        if size > 1 and np.subtract(*np.sort(theirs)[:-3:-1]) > MARGIN:
            kept.append(bool(np.argmax(ours) == np.argmax(theirs)))
    return kept

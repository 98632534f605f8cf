"""What an export must keep of the checkpoint's scores, measured through the whole run-time path."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from cappy_select.bundle import Bundle, Precision
from cappy_select.errors import ExportError
from cappy_select.export.checkpoint import Checkpoint
from cappy_select.export.graph import input_names
from cappy_select.scorer import Scorer


class Gate(NamedTuple):
    """The worst that a precision may do on the calibration pairs."""

    max_abs_diff: float  # of any score, in units of max(1, largest |score|)
    winner_agreement: float  # over groups whose first and second differ by more than `MARGIN`


MARGIN = 0.01
GATES: dict[Precision, Gate] = {
    "fp32": Gate(1e-4, 1.0),
    "fp16": Gate(0.01, 1.0),
    "int8": Gate(0.15, 0.9),  # some 20 of the 25 groups count, so one flip is 0.05
}


def measure(bundle: Bundle, checkpoint: Checkpoint, precision: Precision) -> dict[str, float]:
    """The measurements for the manifest. Raises ExportError when a score or a winner left the gate."""
    groups = calibration_groups()
    pairs = [(instruction, response) for instruction, responses in groups for response in responses]
    expected = torch_scores(checkpoint, pairs)
    found = Scorer(bundle).score_detailed(pairs).scores
    difference = float(np.abs(expected - found).max() / max(1.0, float(np.abs(expected).max())))
    agreement = _winner_agreement([len(responses) for _, responses in groups], expected, found)
    gate = GATES[precision]
    if agreement is None and precision != "fp32":
        raise ExportError(
            f"{precision} can't be judged: the checkpoint scores all calibration responses alike (within {MARGIN}); "
            "export it in fp32"
        )
    agreement = 1.0 if agreement is None else agreement
    if not difference <= gate.max_abs_diff or not agreement >= gate.winner_agreement:  # NaN fails too
        raise ExportError(
            f"{precision} changes the scores too much: max |Δscore| {difference:.2g} (at most {gate.max_abs_diff:g}), "
            f"winner agreement {agreement:.3f} (at least {gate.winner_agreement:g}): export in a higher precision"
        )
    return {"pairs": len(pairs), "max_abs_diff": difference, "winner_agreement": agreement}


def torch_scores(checkpoint: Checkpoint, pairs: list[tuple[str, str]]) -> npt.NDArray[np.float32]:
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
    return np.array(scores, np.float32)


@cache
def calibration_groups() -> list[tuple[str, list[str]]]:
    """Instructions with their candidate responses, written for this purpose."""
    lines = (Path(__file__).parent / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["instruction"], row["responses"]) for row in map(json.loads, lines)]


def _winner_agreement(
    sizes: list[int], expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]
) -> float | None:
    """None when no group has a clear winner."""
    agreed, start = [], 0
    for size in sizes:
        ours, theirs = found[start : start + size], expected[start : start + size]
        start += size
        first, second = np.sort(theirs)[::-1][:2]
        if first - second > MARGIN:
            agreed.append(bool(np.argmax(ours) == np.argmax(theirs)))
    return float(np.mean(agreed)) if agreed else None

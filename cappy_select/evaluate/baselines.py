"""The baselines: ways to pick one of several answers, and the quality of what each picks, prompt by prompt."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cappy_select.ask.recorded import Recorded, RecordedInstance
from cappy_select.text.extractors import plain
from cappy_select.text.numbers import is_number, number

Floats = npt.NDArray[np.float64]
Scores = Sequence[npt.NDArray[np.float32]]


def baselines_of(
    rows: Sequence[RecordedInstance], quality: Sequence[Floats], scores: Mapping[str, Scores]
) -> dict[str, Floats]:
    """float64[rows] by way: `first`, `random` (the expectation), `longest`, `best_single`, what can be of `vote`,
    `self_sum` and `self_mean`, then each scorer's pick and its score × vote (`NAME_vote`), `oracle`.

    Args:
        rows: Prompts with their answers.
        quality: Of the answers to each, in [0, 1].
        scores: Of the answers to each, by scorer.

    Votes need a majority in at least half of the prompts, self-scoring all log-likelihoods.
    """
    ways = {
        "first": np.array([values[0] for values in quality]),
        "random": np.array([values.mean() for values in quality]),
        "longest": _picked(quality, [[len(answer.response) for answer in row.candidates] for row in rows]),
        "best_single": _of_model(rows, quality)[best_model_of(rows, quality)],
    }
    answers = [[final_answer(answer, row.references) for answer in row.candidates] for row in rows]
    votes = [_votes(given) for given in answers]
    has_majority = 2 * sum(max(counts) > 1 for counts in votes) >= len(rows)
    if has_majority:
        ways["vote"] = _picked(quality, votes)
    for name, field in (("self_sum", "logprob_sum"), ("self_mean", "logprob_mean")):
        own = [[getattr(answer, field) for answer in row.candidates] for row in rows]
        if all(value is not None for values in own for value in values):
            ways[name] = _picked(quality, own)
    for name, found in scores.items():
        ways[name] = _picked(quality, found)
        if has_majority:
            ways[f"{name}_vote"] = _picked(quality, list(map(_weighted, answers, found)))
    ways["oracle"] = np.array([values.max() for values in quality])
    return ways


def best_model_of(rows: Sequence[RecordedInstance], quality: Sequence[Floats]) -> str:
    """The model with the best mean, of equal ones the earlier; its first answer counts, a missing one as wrong."""
    means = {model: values.mean() for model, values in _of_model(rows, quality).items()}
    return max(means, key=lambda model: means[model])


def final_answer(answer: Recorded, references: Sequence[str]) -> str:
    """What of an answer is compared in a vote; empty when nothing is.

    The recorded `answer` if there is one; the last number where the references are numbers; else the whole
    text without case, punctuation and articles (the normalisation of SQuAD).
    """
    if answer.answer is not None:
        return plain(answer.answer)
    if references and all(map(is_number, references)):
        return number(answer.said)
    return plain(answer.said)


def _picked(quality: Sequence[Floats], marks: Sequence[Sequence[float] | npt.NDArray[np.float32]]) -> Floats:
    """The quality of the answer with the highest mark: the first of a tie; NaN never wins, nothing but NaN is 0."""
    best = [None if np.isnan(each).all() else int(np.nanargmax(each)) for each in map(np.asarray, marks)]
    return np.array([0.0 if place is None else values[place] for values, place in zip(quality, best, strict=True)])


def _of_model(rows: Sequence[RecordedInstance], quality: Sequence[Floats]) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    for place, (row, values) in enumerate(zip(rows, quality, strict=True)):
        firsts: dict[str, float] = {}
        for answer, value in zip(row.candidates, values, strict=True):
            firsts.setdefault(answer.model, value)
        for model, value in firsts.items():
            found.setdefault(model, np.zeros(len(rows)))[place] = value
    return found


def _votes(answers: Sequence[str]) -> list[int]:
    """How many gave each one's answer; no answer has no votes."""
    counts = Counter(answer for answer in answers if answer)
    return [counts[answer] for answer in answers]


def _weighted(answers: Sequence[str], scores: npt.NDArray[np.float32]) -> list[float]:
    """Each one's score if it gives the answer that `WeightedVote` takes, else less than any score.

    Where nobody gives an answer, each one's score.
    """
    givers: dict[str, list[float]] = {}
    for answer, score in zip(answers, scores.tolist(), strict=True):
        if answer and math.isfinite(score):
            givers.setdefault(answer, []).append(score)

    def weight(answer: str) -> tuple[float, int, float]:
        own = givers[answer]
        return sum(max(0.0, score) for score in own), len(own), max(own)

    winner = max(givers, key=weight, default=None)
    return [
        score if winner in (None, answer) else -math.inf for answer, score in zip(answers, scores.tolist(), strict=True)
    ]

"""How good are the picks? Cappy's against random, first, longest, the best single model, a vote, the oracle."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.errors import InputError
from cappy_select.recorded import Recorded, RecordedInstance, read_recorded
from cappy_select.scorer import Scorer


class SelectionReport(BaseModel):
    """Mean quality of each way to pick one of the recorded answers, as a fraction of 1.

    Quality is correctness, or a human rating scaled to [0, 1]. `random` is the expectation; `vote` is None
    where most instances have no two answers alike.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    cut_pairs: int = Field(description="pairs that did not fit the scorer's window")


def evaluate_selection(
    path: str | Path,
    scorer: Scorer,
    *,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SelectionReport:
    """Score every recorded answer of a file and compare the picks.

    Args:
        path: JSONL (plain or `.gz`) of `id, instruction, candidates[{model, response, correct | human}]`.
        scorer: Whose picks are judged.
        limit: Only the first instances.
        on_progress: Called with (pairs that became known in this step, pairs in all).

    Raises InputError, naming the file, when an answer has no `correct` and no `human`.
    """
    instances = _instances(path, limit)
    pairs = [(row.instruction, answer.response) for row in instances for answer in row.candidates]
    total = len(pairs)
    scored = scorer.score_detailed(pairs, on_progress=(lambda done: on_progress(done, total)) if on_progress else None)
    per_instance = np.split(scored.scores, np.cumsum([len(row.candidates) for row in instances])[:-1])
    quality = [np.array([answer.quality for answer in row.candidates], float) for row in instances]
    best_model, best_single = _best_single(instances)
    return SelectionReport(
        file=Path(path).name,
        scorer=str(scorer.bundle),
        n=len(instances),
        candidates=len(pairs) / len(instances),
        random=_mean(q.mean() for q in quality),
        first=_mean(q[0] for q in quality),
        longest=_mean(
            q[max(range(len(q)), key=lambda i: len(row.candidates[i].response))]
            for row, q in zip(instances, quality, strict=True)
        ),
        best_single=best_single,
        best_model=best_model,
        vote=_vote(instances),
        cappy=_mean(q[_argmax(s)] for s, q in zip(per_instance, quality, strict=True)),
        oracle=_mean(q.max() for q in quality),
        cut_pairs=int(np.count_nonzero(scored.cut)),
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


def _best_single(instances: Sequence[RecordedInstance]) -> tuple[str, float]:
    """The model with the best mean over all instances; its first answer counts, a missing one as wrong."""
    totals: dict[str, float] = {}
    for row in instances:
        firsts = {answer.model: answer.quality or 0.0 for answer in reversed(row.candidates)}
        for model, quality in firsts.items():
            totals[model] = totals.get(model, 0.0) + quality
    best = max(totals, key=lambda model: totals[model])
    return best, totals[best] / len(instances)


def _vote(instances: Sequence[RecordedInstance]) -> float | None:
    """Quality of the majority's answer (its first giver's); None unless half the instances have a majority."""
    picks, majorities = [], 0
    for row in instances:
        answers = [final_answer(answer, row.references) for answer in row.candidates]
        counts = Counter(answer for answer in answers if answer)
        winner, votes = counts.most_common(1)[0] if counts else ("", 0)
        majorities += votes > 1
        # Counter keeps first-seen order among equals: without a majority the first answer is taken.
        picks.append(row.candidates[answers.index(winner) if winner else 0].quality or 0.0)
    return _mean(picks) if majorities * 2 >= len(instances) else None


_NUMBER = re.compile(r"(?<![\d.])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


def final_answer(answer: Recorded, references: Sequence[str]) -> str:
    """What of an answer is compared in a vote; empty when nothing is.

    The recorded `answer` if there is one; the last number where the references are numbers; else the whole
    text without case, punctuation and articles (the normalisation of SQuAD).
    """
    if answer.answer is not None:
        return _plain(answer.answer)
    if references and all(_NUMBER.fullmatch(reference.strip()) for reference in references):
        numbers = _NUMBER.findall(answer.response)
        return str(Decimal(numbers[-1].replace(",", "")).normalize()) if numbers else ""
    return _plain(answer.response)


def _plain(text: str) -> str:
    words = re.sub(r"[^\w\s]", "", text.lower()).split()
    return " ".join(word for word in words if word not in {"a", "an", "the"})


def _argmax(scores: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> int:
    return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))


def _mean(values: object) -> float:
    return float(np.mean(list(values)))  # type: ignore[call-overload]

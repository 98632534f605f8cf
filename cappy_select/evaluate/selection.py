"""How good are the picks? Cappy's against random, first, longest, the best single model, a vote, the oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.answers import NUMBER, number, plain
from cappy_select.errors import InputError
from cappy_select.recorded import Recorded, RecordedInstance, read_recorded
from cappy_select.scorer import Scorer
from cappy_select.strategies import NAMES, SelfScore, Strategy, strategy_named
from cappy_select.types import Candidate


class SelectionReport(BaseModel):
    """Mean quality of each way to pick one of the recorded answers, as a fraction of 1.

    Quality is correctness, or a human rating scaled to [0, 1]. `random` is the expectation; `vote` is None
    where most instances have no two answers alike. `strategies` has what was asked for by name; None where
    the file lacks what a strategy goes by (log-probabilities, costs).
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
    strategies: dict[str, float | None] = Field(default_factory=dict)
    cut_pairs: int = Field(description="pairs that did not fit the scorer's window")


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
    pairs = [(row.instruction, answer.response) for row in instances for answer in row.candidates]
    total = len(pairs)
    scored = scorer.score_detailed(pairs, on_progress=(lambda done: on_progress(done, total)) if on_progress else None)
    per_instance = np.split(scored.scores, np.cumsum([len(row.candidates) for row in instances])[:-1])
    quality = [np.array([answer.quality for answer in row.candidates], float) for row in instances]
    best_model, best_single = _best_single(instances)
    vote = _vote(instances)
    candidates = (
        [_candidates(row, scores) for row, scores in zip(instances, per_instance, strict=True)] if chosen else []
    )
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
        vote=vote,
        cappy=_mean(q[_argmax(s)] for s, q in zip(per_instance, quality, strict=True)),
        oracle=_mean(q.max() for q in quality),
        strategies={
            name: None if name == "vote" and vote is None else _quality_of(strategy, candidates, quality)
            for name, strategy in chosen.items()
        },
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
    return _mean(q[strategy.order(row)[0].index] if row else q[0] for row, q in zip(able, quality, strict=True))


def final_answer(answer: Recorded, references: Sequence[str]) -> str:
    """What of an answer is compared in a vote; empty when nothing is.

    The recorded `answer` if there is one; the last number where the references are numbers; else the whole
    text without case, punctuation and articles (the normalisation of SQuAD).
    """
    if answer.answer is not None:
        return plain(answer.answer)
    if references and all(NUMBER.fullmatch(reference.strip()) for reference in references):
        return number(answer.response)
    return plain(answer.response)


def _argmax(scores: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> int:
    return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))


def _mean(values: object) -> float:
    return float(np.mean(list(values)))  # type: ignore[call-overload]

"""From scored candidates to an order, best first.

Every strategy is a small object without state: `order` sees only candidates that can win. Ties go to the
earlier in request order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol, runtime_checkable

from cappy_select.core.errors import InputError
from cappy_select.core.time_limit import check_time
from cappy_select.core.types import Candidate
from cappy_select.text.extractors import Extract, extractor, whole_text
from cappy_select.text.messages import response_text
from cappy_select.text.similarity import rouge_l, words


@runtime_checkable
class Strategy(Protocol):
    """Orders candidates that can win. `name` is recorded in the Selection."""

    @property
    def name(self) -> str:
        """What the Selection records it as."""
        ...

    def order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The order of the candidates, best first.

        Args:
            candidates: Those that can win, in any order; every one has a finite score.

        Returns:
            The same candidates, best first. What it raises becomes a `StrategyError`.
        """
        ...


Need = Literal["logprobs", "cost"]


@runtime_checkable
class Needing(Protocol):
    """A strategy that needs more of the models than an answer."""

    @property
    def needs(self) -> frozenset[Need]:
        """`logprobs`: asked for with every call. `cost`: every model must have a price."""
        ...


class Argmax:
    """The highest score wins; of equal ones the earlier in request order (Cappy, section 3.3)."""

    name = "argmax"

    def order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Sorted by score, descending; stable."""
        return _sorted(candidates, _score)


class Vote:
    """The answer that most candidates give (self-consistency); its first giver wins. Scores do not count.

    Args:
        extract: The answer within a candidate: a function, or a name (`text`, `number`, `line`, `boxed`,
            `after:MARKER`, `regex:PATTERN`). Candidates without an answer, or on which it fails, come last.

    Raises:
        InputError: there is no extractor of this name.
    """

    name = "vote"

    def __init__(self, extract: Extract | str = whole_text) -> None:
        self._extract = _extractor(extract)

    def order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Answers by the number of votes, then by the earliest giver."""
        return _by_answer(candidates, self._extract, len, lambda candidate: 0.0)


class WeightedVote:
    """The answer whose givers' scores sum highest; its best-scored giver wins. A negative score counts 0.

    Where all scores are negative the number of givers decides, then the best score.

    Args:
        extract: As in `Vote`.

    Raises:
        InputError: there is no extractor of this name.
    """

    name = "weighted_vote"

    def __init__(self, extract: Extract | str = whole_text) -> None:
        self._extract = _extractor(extract)

    def order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Answers by the sum of scores, then candidates by score."""
        return _by_answer(candidates, self._extract, _weight, _score)


class Cluster:
    """Responses that are much alike form a cluster; the best-scored member of the heaviest one wins.

    The vote of free text, which no two models spell alike. A response joins the first cluster whose first member has a
    Rouge-L of at least `similarity` with it; a cluster weighs the sum of its scores, where a negative one counts 0.

    Args:
        similarity: In (0, 1]; Rouge-L F1 over words, the first 10,000 of a response.

    Raises:
        InputError: `similarity` is outside (0, 1].
    """

    name = "cluster"

    def __init__(self, similarity: float = 0.5) -> None:
        if not 0 < similarity <= 1:
            raise InputError(f"similarity must be in (0, 1], got {similarity}")
        self._similarity = similarity

    def order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Clusters by the sum of scores, then candidates by score."""
        clusters: list[tuple[list[str], list[Candidate]]] = []
        for candidate in sorted(candidates, key=lambda candidate: candidate.index):
            own = words(response_text(candidate.message))
            home = next((members for first, members in clusters if rouge_l(first, own) >= self._similarity), None)
            if home is None:
                clusters.append((own, [candidate]))
            else:
                home.append(candidate)
        return _by_groups([members for _, members in clusters], _weight, _score)


class SelfScore:
    """The answer its own model finds likeliest, by its tokens' log-probabilities (the paper's self-scoring).

    Candidates without log-probabilities come last.

    Args:
        kind: `sum` over the tokens (the paper's choice), or `mean`, which does not favour short answers.

    Raises:
        InputError: `kind` is neither.
    """

    needs: frozenset[Need] = frozenset({"logprobs"})

    def __init__(self, kind: Literal["sum", "mean"] = "sum") -> None:
        if kind not in ("sum", "mean"):
            raise InputError(f"self-scoring goes by 'sum' or 'mean', got {kind!r}")
        self._kind = kind
        self.name = f"self_score_{kind}"

    def order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Sorted by log-likelihood, descending.

        Args:
            candidates: Those that can win.

        Returns:
            The same candidates, best first; those without log-probabilities last.

        Raises:
            InputError: none has log-probabilities.
        """
        values = {candidate.index: self.likelihood(candidate) for candidate in candidates}
        if all(value is None for value in values.values()):
            raise InputError(f"{self.name}: no candidate has log-probabilities; the models gave none")
        return _sorted(candidates, lambda c: _finite(values[c.index]))

    def likelihood(self, candidate: Candidate) -> float | None:
        """What a candidate goes by; None when its model gave no log-probabilities.

        Args:
            candidate: Any answer.

        Returns:
            Natural log-probabilities, summed or their mean; None for none.
        """
        return candidate.logprob_sum if self._kind == "sum" else candidate.logprob_mean


class MinimumBayesRisk:
    """The response most like all others: the highest mean Rouge-L with them (Kumar and Byrne 2004).

    The first 10,000 words of a response count.
    """

    name = "minimum_bayes_risk"

    def order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Sorted by mean similarity to the other candidates, descending."""
        candidates = sorted(candidates, key=lambda candidate: candidate.index)  # sums must not depend on the order
        texts = [words(response_text(candidate.message)) for candidate in candidates]
        utility = [0.0] * len(texts)
        for first in range(len(texts)):
            for second in range(first):
                likeness = rouge_l(texts[first], texts[second])
                utility[first] += likeness
                utility[second] += likeness
        values = {candidate.index: value for candidate, value in zip(candidates, utility, strict=True)}
        return _sorted(candidates, lambda candidate: values[candidate.index])


class QualityCost:
    """The highest score after what the answer cost was taken off: score - per_dollar * cost - per_second * latency.

    A candidate whose price is unknown comes last, where `per_dollar` is not 0.

    Args:
        per_dollar: Score that a dollar must buy. An answer costs a fraction of a cent: 100 is one hundredth of score
            for a hundredth of a cent.
        per_second: Score that a second must buy.

    Raises:
        InputError: a price is negative or not finite, or both are 0.
    """

    name = "quality_cost"

    def __init__(self, per_dollar: float = 0.0, per_second: float = 0.0) -> None:
        if not (per_dollar >= 0 and per_second >= 0 and math.isfinite(per_dollar + per_second)):
            raise InputError(f"prices must be finite and not negative, got {per_dollar} and {per_second}")
        if not per_dollar and not per_second:
            raise InputError("give per_dollar, per_second or both: without a price this is Argmax")
        self._per_dollar, self._per_second = per_dollar, per_second
        self.needs: frozenset[Need] = frozenset({"cost"} if per_dollar else ())

    def order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Sorted by what is left of the score, descending."""
        return _sorted(candidates, self._worth)

    def _worth(self, candidate: Candidate) -> float:
        if self._per_dollar and candidate.cost is None:
            return -math.inf
        price = self._per_dollar * (candidate.cost or 0.0) + self._per_second * candidate.latency_s
        return _score(candidate) - price


NAMES = (
    *("argmax", "vote", "weighted_vote", "cluster", "self_score_sum", "self_score_mean", "minimum_bayes_risk"),
    "quality_cost",
)


def strategy_named(name: str, *, extract: Extract | str = whole_text, per_dollar: float = 1.0) -> Strategy:
    """A strategy by its recorded name.

    Args:
        name: `argmax`, `vote`, `weighted_vote`, `cluster`, `self_score_sum`, `self_score_mean`, `minimum_bayes_risk` or
            `quality_cost`.
        extract: For the votes: what finds the answer within a candidate, or its name (`text.extractor`).
        per_dollar: For `quality_cost`: score that a dollar must buy.

    Returns:
        The strategy, otherwise with its defaults.

    Raises:
        InputError: there is no strategy, or no extractor, of this name.
    """
    made: dict[str, Callable[[], Strategy]] = {
        "argmax": Argmax,
        "vote": lambda: Vote(extract),
        "weighted_vote": lambda: WeightedVote(extract),
        "cluster": Cluster,
        "self_score_sum": lambda: SelfScore("sum"),
        "self_score_mean": lambda: SelfScore("mean"),
        "minimum_bayes_risk": MinimumBayesRisk,
        "quality_cost": lambda: QualityCost(per_dollar=per_dollar),
    }
    if name not in made:
        raise InputError(f"there is no strategy {name!r}; there are {', '.join(NAMES)}")
    return made[name]()


def _extractor(extract: Extract | str) -> Extract:
    return extractor(extract) if isinstance(extract, str) else extract


def _by_answer(
    candidates: Iterable[Candidate],
    extract: Extract,
    weight: Callable[[list[Candidate]], float],
    value: Callable[[Candidate], float],
) -> list[Candidate]:
    """By the answers' weight; candidates without an answer last. One on which `extract` fails has none; if it fails on
    all, its error is raised."""
    groups: dict[str, list[Candidate]] = {}
    errors: list[Exception] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.index):
        answer = ""
        try:
            answer = extract(candidate) or ""
        except Exception as error:
            check_time()  # if it is the time that is up, the others will have none either
            errors.append(error)
        groups.setdefault(answer, []).append(candidate)
    if errors and len(errors) == sum(map(len, groups.values())):
        raise errors[0]
    silent = groups.pop("", [])
    return _by_groups(list(groups.values()), weight, value) + _sorted(silent, value)


def _by_groups(
    groups: Sequence[list[Candidate]],
    weight: Callable[[list[Candidate]], float],
    value: Callable[[Candidate], float],
) -> list[Candidate]:
    """Heaviest group first (of equal ones the larger, then the better); within it the most valuable first."""
    ordered = sorted(groups, key=lambda members: (-weight(members), -len(members), -max(map(value, members))))
    return [candidate for members in ordered for candidate in _sorted(members, value)]


def _weight(members: Iterable[Candidate]) -> float:
    return sum(max(0.0, _score(member)) for member in members)


def _sorted(candidates: Iterable[Candidate], value: Callable[[Candidate], float]) -> list[Candidate]:
    return sorted(candidates, key=lambda candidate: (-value(candidate), candidate.index))


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else -math.inf


def _score(candidate: Candidate) -> float:
    score = candidate.score
    if score is None or not math.isfinite(score):
        raise InputError(f"a candidate without a finite score can't be ordered: {candidate.model}, score {score}")
    return score

"""From one question, with all that is known of its answers, to scored pairs (Tan et al. 2023, section 3.2).

Pure: what comes out depends on what goes in alone, so that any worker of any kind can do it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cappy_select.core.characters import is_blank

Kind = Literal["gold", "mismatch", "augmented", "labelled"]
Mode = Literal["pretrain", "adapt"]


class Pair(NamedTuple):
    """One response to a question, and how right it is."""

    response: str
    score: float
    kind: Kind


@dataclass
class Answer:
    """A sampled response: `quality` when somebody said how right it is, `label` when it was labelled already."""

    response: str
    quality: float | None = None
    label: float | None = None


@dataclass
class Question:
    """An instruction of a task. Instances that ask the same are one question, with the answers of all of them.

    `group` is the first one's id; `training` is false when all of them are for validation.
    """

    task: str
    instruction: str
    group: str
    training: bool
    references: list[str] = field(default_factory=list)
    choices: list[str] | None = None
    negatives: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


@dataclass
class Made:
    """The pairs of one question, and what could not be used."""

    pairs: list[Pair]
    unlabelled: int = 0  # samples with nothing to label them by
    unmatched: int = 0  # references for which there was no other question's reference


LabelAnswers = Callable[[Sequence[str], Sequence[str]], list[float]]


def pairs_of(
    question: Question,
    mode: Mode,
    label: LabelAnswers,
    others: Sequence[str],
    mismatches: int,
    seed: int,
    *,
    sampled_only: bool = False,
) -> Made:
    """All pairs of a question, each response once.

    Args:
        question: What is known.
        mode: `pretrain`: sampled answers to questions with choices are used only when somebody said how right
            they are, as in the paper. `adapt`: all sampled answers are.
        label: Scores responses against references, in [0, 1]; NaN leaves a response out.
        others: References of other questions of the task, to be taken for wrong answers.
        mismatches: How many of those for each reference, when there are no choices.
        seed: Of the draw.
        sampled_only: Leave out what nobody sampled: references, wrong choices, other questions' references.

    A response that stands for several things is what it is first of: a reference (1.0), known to be wrong or a
    wrong choice (0.0), a sample of known quality, a labelled sample, another question's reference (0.0).
    """
    references = [text for text in dict.fromkeys(question.references) if not is_blank(text)]
    right = {folded(text) for text in references}
    found: dict[str, Pair] = {text: Pair(text, 1.0, "gold") for text in references}

    wrong = [*question.negatives, *((question.choices or ()) if references else ())]
    for text in wrong:
        if folded(text) not in right:
            found.setdefault(text, Pair(text, 0.0, "mismatch"))
    for response, quality in _known(question.answers).items():
        found.setdefault(response, Pair(response, quality, "labelled"))
    unlabelled = _add_labelled(question, mode, label, references, found)
    unmatched = 0
    sampled = {answer.response for answer in question.answers}
    if not question.choices and not sampled_only:
        draw = random.Random(seed)  # noqa: S311
        taken = set(map(folded, found))
        for _ in range(mismatches * len(references)):
            other = _drawn(draw, others, taken)
            if other is None:
                unmatched += 1
            else:
                found[other] = Pair(other, 0.0, "mismatch")
                taken.add(folded(other))
    pairs = [pair for pair in found.values() if not sampled_only or pair.response in sampled]
    return Made(pairs, unlabelled, unmatched)


def _known(answers: Sequence[Answer]) -> dict[str, float]:
    """The quality of each response; its mean, where it was judged several times."""
    judged: dict[str, list[float]] = {}
    for answer in answers:
        if answer.quality is not None:
            judged.setdefault(answer.response, []).append(answer.quality)
    return {response: sum(values) / len(values) for response, values in judged.items()}


def _add_labelled(
    question: Question, mode: Mode, label: LabelAnswers, references: Sequence[str], found: dict[str, Pair]
) -> int:
    """Add the sampled answers whose quality nobody knows; returns how many can't be labelled."""
    if mode == "pretrain" and question.choices:
        return 0
    new = [answer for answer in question.answers if answer.response not in found]
    labels = {answer.response: answer.label for answer in new if answer.label is not None}
    rest = list(dict.fromkeys(answer.response for answer in new if answer.response not in labels))
    scores = label(rest, references) if rest and references else [math.nan] * len(rest)
    labels |= {response: score for response, score in zip(rest, scores, strict=True) if not math.isnan(score)}
    found |= {response: Pair(response, score, "augmented") for response, score in labels.items()}
    return sum(map(math.isnan, scores))


_DRAWS = 20  # of which one is likely to be new; without, the question has fewer wrong answers


def _drawn(draw: random.Random, others: Sequence[str], taken: set[str]) -> str | None:
    for _ in range(_DRAWS if others else 0):
        other = others[draw.randrange(len(others))]
        if folded(other) not in taken:
            return other
    return None


def folded(text: str) -> str:
    """A text without case and the size of its blanks: what must not differ between a right and a wrong answer."""
    return " ".join(text.casefold().split())

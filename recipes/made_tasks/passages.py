"""Which passage answers a question, and which of a text's sentences does."""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from statements import asked_about
from texts import Corpus, Row, Text, chosen

_ASK = [
    "Generate a question about the following passage: {passage}",
    "Generate a question about the following passage: {passage}",
    "Passage: {passage}\nWrite a question that this passage answers.",
    "{passage}\n\nWhich question does this answer?",
    "Read this: {passage}\nThen ask something whose answer it holds.",
]
_ANSWER = [
    "{question}",
    "{question}",
    "Question: {question}\nAnswer in a sentence.",
    "Tell me: {question}",
    "{text}\n\n{question} Answer with a sentence of the text.",
    "Which sentence answers the question?\nQuestion: {question}\nText: {text}",
]
_TEMPLATES = 9  # a question about so many texts is their template's
_SHOWN = 1200  # characters of a text


class _Asked(NamedTuple):
    text: Text
    question: str
    answers: tuple[str, ...]
    task: str


class _Place(NamedTuple):
    """Where a text answers a question, and up to two other sentences with words of it."""

    text: Text
    question: str
    right: int
    wrong: list[int]


def asked_of(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """Texts and the questions about them, beside questions about other texts most of whose words stand in this one."""
    asked = list(_questions(corpus))
    known = {each.question: each for each in asked}
    holding: dict[str, list[str]] = defaultdict(list)
    for question in known:
        for word in _words(question):
            holding[word].append(question)
    rare = {word: math.log1p(len(known) / len(questions)) for word, questions in holding.items()}
    weight = {question: sum(rare[word] for word in _words(question)) for question in known}
    usual = sum(weight.values()) / max(1, len(weight))  # without it the shortest questions are the likest
    for text, question, answers, _ in {(each.text.sentences, each.question): each for each in asked}.values():
        passage = " ".join(text.sentences)[:_SHOWN]
        if not _holds(passage, answers):
            continue
        shared = Counter[str]()
        for word in sorted(_words(passage) & holding.keys()):
            for other in holding[word]:
                shared[other] += rare[word]
        alike = sorted(shared, key=lambda other: (-shared[other] / (weight[other] + usual), other))
        wrong = [other for other in alike[:20] if _is_of_another(known[other], text, passage)][:6]
        told = draw.choice(_ASK).format(passage=passage)
        yield _written(told, question, draw.sample(wrong, min(2, len(wrong))))


def asked_here(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """A sentence or two, and the question that they answer; or one that they do not, though they have words of it."""
    for text, question, right, wrong in _places(corpus, draw):
        told = draw.choice(_ASK)
        yield _written(told.format(passage=_around(text, right, draw)), question, [])
        for place in wrong:
            passage = told.format(passage=_around(text, place, draw))
            yield {"instruction": passage, "references": [], "choices": None, "negatives": [question]}


def told_in(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """A question, and the sentence of its text that answers it; beside others with words of the question."""
    for text, question, right, wrong in _places(corpus, draw):
        shown = text.whole[:_SHOWN]
        if text.sentences[right] in shown:
            told = draw.choice(_ANSWER).format(question=question, text=shown)
            yield _written(told, text.sentences[right], [text.sentences[place] for place in wrong])


def answers_it(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """Whether a passage says the answer, and which of two does."""
    for text, question, right, wrong in _places(corpus, draw):
        passages = [_around(text, right, draw), _around(text, wrong[0], draw)]
        one = draw.choice((0, 1))
        told = f'{passages[one]}\n\nDoes this say the answer to "{question}"? Yes or no?'
        yield chosen(told, ("Yes", "No")[one], ("Yes", "No"))
        order = draw.sample((0, 1), 2)
        first, second = (passages[place] for place in order)
        told = f"{question}\nWhich passage answers this?\nA) {first}\nB) {second}"
        yield chosen(told, "AB"[order.index(0)], ("A", "B"))


def _questions(corpus: Corpus) -> Iterator[_Asked]:
    """Whole questions about a text, with their answers."""
    found = [(text, row, (asked_about(text, row) or "").lstrip("\"'")) for text, row in corpus.asked]
    texts: dict[str, set[str]] = defaultdict(set)
    for text, _, question in found:
        texts[question].add(text.whole)
    for text, row, question in found:
        if row["task"].startswith("ropes") or any(answer.endswith("?") for answer in row["references"]):
            continue  # what ropes asks takes the whole text, and its texts are few
        begins = re.search(rf"(?:^|\n|[\"']|: ){re.escape(question)}", row["instruction"])  # else it was cut
        if begins and question[:1].isupper() and len(_words(question)) > 1 and len(texts[question]) < _TEMPLATES:
            yield _Asked(text, question, tuple(row["references"]), row["task"])


def _places(corpus: Corpus, draw: random.Random) -> Iterator[_Place]:
    for text, question, answers, task in _questions(corpus):
        if task.startswith("quoref") or min(map(len, answers), default=0) < 4:
            continue  # it asks who "she" is: what says so is elsewhere; "two" may stand anywhere
        about = _words(question)
        shared = [len(about & _words(sentence)) for sentence in text.sentences]
        parts = {part for answer in answers for part in re.findall(r"[A-Z]\w{2,}|\d{2,}", answer)}
        holding = [place for place, sentence in enumerate(text.sentences) if _holds(sentence, answers)]
        right = max(holding, key=lambda place: shared[place], default=None)
        if right is None or shared[right] < 2:
            continue
        others = [
            place
            for place, sentence in enumerate(text.sentences)
            if shared[place] < shared[right] and not parts & set(re.findall(r"\w+", sentence))
            if all(abs(place - near) > 1 for near in holding)
        ]
        draw.shuffle(others)
        if others:
            yield _Place(text, question, right, sorted(others, key=lambda place: -shared[place])[:2])


def _is_of_another(asked: _Asked, text: Text, passage: str) -> bool:
    """Whether a question is about another text, which has no sentence of this one, and has no answer here."""
    ends = {sentence[-40:] for sentence in asked.text.sentences}  # templates differ in how a text begins
    return ends.isdisjoint(sentence[-40:] for sentence in text.sentences) and not _holds(passage, asked.answers)


def _holds(passage: str, answers: tuple[str, ...]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", passage, re.IGNORECASE) for answer in answers)


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


def _written(told: str, right: str, wrong: list[str]) -> Row:
    return {"instruction": told, "references": [right], "choices": None, "negatives": wrong}


def _around(text: Text, place: int, draw: random.Random) -> str:
    """A sentence, or it and the next."""
    return " ".join(text.sentences[place : place + (2 if draw.random() < 0.4 else 1)])

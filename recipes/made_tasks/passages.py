"""Which passage answers a question, and which of a text's sentences does."""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain

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


def sought(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """Questions about a text: the sentences that answer one, beside others of the text with words of the question."""
    for text, row, question in _questions(corpus):
        answer = row["references"][0]
        about = _words(question)
        whole = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)", re.IGNORECASE)
        shared = [len(about & _words(sentence)) for sentence in text.sentences]
        holding = [place for place, sentence in enumerate(text.sentences) if whole.search(sentence)]
        others = [
            place
            for place in range(len(text.sentences))
            if place not in holding and all(place != near + side for near in holding for side in (-1, 1))
        ]
        right = max(holding, key=lambda place: shared[place], default=None)
        if right is None or shared[right] < 2 or not others:
            continue
        draw.shuffle(others)
        wrong = sorted(others, key=lambda place: -shared[place])[:2]  # the likest
        yield from _found(text, question, right, wrong, draw)


def asked_of(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """Texts and the questions about them, beside questions about other texts most of whose words stand in this one."""
    of_text: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for text, _, question in _questions(corpus):
        of_text[text.sentences][question] = None
    holding: dict[str, list[str]] = defaultdict(list)
    for question in dict.fromkeys(question for questions in of_text.values() for question in questions):
        for word in _words(question):
            holding[word].append(question)
    rare = {word: math.log1p(len(of_text) / len(questions)) for word, questions in holding.items()}
    weight = {question: sum(rare[word] for word in _words(question)) for question in chain(*holding.values())}
    usual = sum(weight.values()) / max(1, len(weight))  # without it the shortest questions are the likest
    for sentences, own in of_text.items():
        passage = " ".join(sentences)
        shared = Counter[str]()
        for word in sorted(_words(passage) & holding.keys()):
            for question in holding[word]:
                shared[question] += rare[word]
        likest = sorted(
            shared.keys() - own.keys(), key=lambda other: (-shared[other] / (weight[other] + usual), other)
        )[:6]
        for question in own:
            asked = draw.choice(_ASK).format(passage=passage[:1200])
            wrong = draw.sample(likest, min(2, len(likest)))
            yield {"instruction": asked, "references": [question], "choices": None, "negatives": wrong}


def _questions(corpus: Corpus) -> Iterator[tuple[Text, Row, str]]:
    found = [(text, row, (asked_about(text, row) or "").lstrip("\"'")) for text, row in corpus.asked]
    texts: dict[str, set[str]] = defaultdict(set)
    for text, _, question in found:
        texts[question].add(text.whole)
    for text, row, question in found:
        if row["task"].startswith("ropes") or row["references"][0].endswith("?"):
            continue  # what ropes asks takes the whole text, and its texts are few
        if question[:1].isalpha() and len(_words(question)) > 1 and len(texts[question]) < 9:  # else the template asks
            yield text, row, question


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


def _found(text: Text, question: str, right: int, wrong: list[int], draw: random.Random) -> Iterator[Row]:
    answering, *misleading = (text.sentences[place] for place in (right, *wrong))
    asked = draw.choice(_ASK)
    yield {"instruction": asked.format(passage=_around(text, right, draw)), "references": [question], "choices": None}
    for place in wrong:
        passage = _around(text, place, draw, unless=right)
        yield {"instruction": asked.format(passage=passage), "references": [], "choices": None, "negatives": [question]}
    short = text.whole[:1200]
    if answering in short:
        asked = draw.choice(_ANSWER).format(question=question, text=short)
        yield {"instruction": asked, "references": [answering], "choices": None, "negatives": misleading}
    passages = [_around(text, right, draw), _around(text, wrong[0], draw, unless=right)]
    one = draw.choice((0, 1))
    told = f'{passages[one]}\n\nDoes this say the answer to "{question}"? Yes or no?'
    yield chosen(told, ("Yes", "No")[one], ("Yes", "No"))
    order = draw.sample((0, 1), 2)
    first, second = (passages[place] for place in order)
    listed = f"{question}\nWhich passage answers this?\nA) {first}\nB) {second}"
    yield chosen(listed, "AB"[order.index(0)], ("A", "B"))


def _around(text: Text, place: int, draw: random.Random, unless: int = -1) -> str:
    """A sentence, or two, without that of `unless`."""
    next_one = place + 1
    if draw.random() < 0.4 and next_one < len(text.sentences) and next_one != unless:
        return f"{text.sentences[place]} {text.sentences[next_one]}"
    return text.sentences[place]

"""Does a statement follow from a text: yes, no, or neither."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from texts import Corpus, Row, Text, chosen, names_in, statements_of
from wrong import distractors, falsified

Label = Literal["yes", "no", "maybe"]

_OPEN = re.compile(
    r"^(In|On|At|For|With|By|From|After|Before|During|As) |\b(if|unless|when|nobody|no|none|not|never|only)\b",
    re.IGNORECASE,
)
_SUBJECT = re.compile(  # a question that asks for its subject: the answer can stand in place of the question word
    r"(?:^|[.:,] )(?:[Ww]ho|[Ww]hat|[Ww]hich|[Ww](?:hat|hich) (?!do\b|does\b|did\b|is\b|are\b|was\b|were\b|has\b|had\b|"
    r"can\b|could\b|will\b|would\b|should\b|year\b|day\b|month\b|time\b|way\b)[a-z]+) "
    r"((?!does\b)(?:is|was|are|were|has|had|[a-z]{2,}ed|[a-z]{3,}s|won|made|led|took|became|began|wrote|gave|came|held|"
    r"built|left|found)\b [^?]{5,140})\?$"
)
_INVERTED = re.compile(r"^(?:is|was|are|were|has|had) (?:\S+ ){1,4}(?:\w+ing|\w+ed|said|done|made|given|taken|born)\b")
_TRAILING = re.compile(r" (?:by|to|in|for|of|from|with|at|on|as|about|into|called|named|known|doing|it|like)$")
_TWO = [("Yes", "No"), ("Yes", "No"), ("True", "False")]
_THREE = [
    ("Yes", "No", "Maybe"), ("Yes", "No", "Maybe"), ("True", "False", "Neither"), ("Always", "Never", "Sometimes"),
    ("Correct", "Incorrect", "Inconclusive"), ("Guaranteed", "Impossible", "Possible"),
    ("True", "False", "Inconclusive"),
]  # fmt: skip


def follows(corpus: Corpus, draw: random.Random, most: int = 36_000) -> Iterator[Row]:
    """A summary's statements about its text, and what a few sentences say; made false, or what they don't say."""
    statements = [
        (text, said, text.whole)
        for text, row in corpus.summarised
        if len(text.whole) < 1400
        for said in statements_of(row["references"][0])
    ]
    for text in corpus.texts:
        for _ in range(2):
            start = draw.randrange(max(1, len(text.sentences) - 1))
            window = text.sentences[start : start + draw.choice((1, 1, 2, 3))]
            premise = " ".join(window)
            if 60 < len(premise) < 900:
                statements.append((text, _part(draw.choice(window), draw), premise))
    draw.shuffle(statements)
    for text, said, premise in statements[:most]:
        label: Label = draw.choices(("yes", "no", "maybe"), (40, 40, 20))[0]
        claim: str | None = said
        if label == "no":
            claim = falsified(said, text, draw)
        elif label == "maybe":
            claim = _unsaid(said, text, premise, corpus, draw)
        if claim is not None and 12 < len(claim) < 320:
            yield worded(premise, claim, label, draw)


def verified(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """A question about a text, and an answer that is right, or another span of the text."""
    for text, row in corpus.asked:
        question = asked_about(text, row)
        answer = row["references"][0]
        wrong = distractors(answer, text, draw)
        if question is None or not wrong or answer.endswith("?"):
            continue
        right = draw.random() < 0.5
        said = answer if right else draw.choice(wrong)
        words = draw.choice([("Yes", "No"), ("True", "False"), ("Correct", "Incorrect")])
        end = f"{words[0]} or {words[1].lower()}?"
        passage = text.whole[:1500]
        asked = draw.choice(
            [
                f'{passage}\n\nThe answer to "{question}" is "{said}". {end}',
                f"Passage: {passage}\nQuestion: {question}\nAnswer: {said}\n{end}",
            ]
        )
        yield chosen(asked, words[0] if right else words[1], words)


def answered(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """A question about a text and its answer made one statement, "Who won it?" and "Bo" to "Bo won it."; or another
    span of the text in the answer's place. A few sentences of the text are the premise."""
    for text, row in corpus.asked:
        if row["task"].startswith("ropes"):  # what it asks takes the whole text
            continue
        question = asked_about(text, row)
        answer = row["references"][0]
        asked = _SUBJECT.search(question) if question else None
        wrong = distractors(answer, text, draw)
        if asked is None or not wrong or answer.endswith("?"):
            continue
        if _TRAILING.search(asked[1]) or _INVERTED.search(asked[1]):
            continue
        about = {word for word in asked[1].lower().split() if len(word) > 3}
        whole = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
        holding = [place for place, sentence in enumerate(text.sentences) if whole.search(sentence)]
        if not holding:
            continue
        place = max(holding, key=lambda place: len(about & set(text.sentences[place].lower().split())))
        first = max(0, place - draw.choice((0, 0, 1, 2)))
        premise = " ".join(text.sentences[first : place + draw.choice((1, 1, 2))])
        near = [span for span in wrong if span in premise] or wrong
        if len(premise) > 900 or len(about & set(premise.lower().split())) < 2:
            continue
        for right in (True, False):
            said = f"{answer if right else draw.choice(near)} {asked[1]}."
            if len(said) < 200:
                yield worded(premise, f"{said[:1].upper()}{said[1:]}", "yes" if right else "no", draw, two=True)


def asked_about(text: Text, row: Row) -> str | None:
    """What is asked about the text; None: it isn't clear which question is."""
    questions = re.findall(r"[^.?!\n:]{8,}\?", row["instruction"].replace(text.whole, " "))
    return questions[0].strip() if len(questions) == 1 else None


def _unsaid(said: str, text: Text, premise: str, corpus: Corpus, draw: random.Random) -> str | None:
    """What the premise does not state: another sentence of its text, or one elsewhere about somebody in it."""
    own = list(text.sentences)
    near = [s for name in names_in(said)[:3] for other, s in corpus.naming[name][:200] if other is not text]
    pools = [[s for s in pool if 25 < len(s) < 250 and s not in premise] for pool in (own, near)]
    pools = [pool for pool in pools if pool]
    return _part(draw.choice(draw.choice(pools)), draw) if pools else None


def _part(sentence: str, draw: random.Random) -> str:
    """Something that a sentence says: it, less an insertion between commas, or a clause of it."""
    if _OPEN.search(sentence):  # a part of it need not hold
        return sentence
    apposed = re.match(r"^([A-Z][\w. ]{2,40}), ((?:a|an|the) [^,]{5,80}), ", sentence)
    if apposed and draw.random() < 0.7:
        return f"{apposed[1]} is {apposed[2]}."
    ways = [re.sub(r", (?:who|which|where|whose) [^,]{3,120},", "", sentence, count=1)]
    for mark in (", and ", ", but ", "; ", " because ", ", while ", ", which ", ", who "):
        before, found, _ = sentence.partition(mark)
        if found and len(before) > 25:
            ways.append(before.rstrip(",;") + ".")
    return draw.choice(ways)


def worded(premise: str, claim: str, label: Label, draw: random.Random, *, two: bool = False) -> Row:
    """The question whether a claim follows, in one of many wordings; `two`: of which maybe is no answer."""
    share = 0.15 if label == "maybe" else 0.4  # maybe is a no where there are two answers: seldom, else no prevails
    words: Sequence[str] = draw.choice(_TWO if two or draw.random() < share else _THREE)
    first, *others = words
    *most, last = [first, *others] if draw.random() < 0.5 else [first, *reversed(others)]
    offered, bare = f"{', '.join(most)} or {last}", claim.rstrip(".")
    asked = draw.choice(
        [
            f'{premise}\n\nDoes the text say that "{bare}"? {offered}?',
            f"Text: {premise}\nStatement: {claim}\nIs the statement {offered.lower()}?",
            f'Suppose that {premise} Would "{bare}" then hold? {offered}?',
            f'{premise}\nQuestion: is it the case that "{bare}"? {offered}?',
            f'We know: {premise}\n\nSo "{bare}". {offered}?',
            f"{premise} Can one conclude that {bare}? {offered}?",
            f'Read this and judge the claim.\n{premise}\nClaim: "{claim}"\n{offered}?',
            f'If it is known that {premise} is it so that "{bare}"? {offered}?',
            f"{premise} From this one may gather: {claim} {offered}?",
            f'Take this for granted: {premise}\nIs "{bare}" {offered.lower()}?',
        ]
    )
    return chosen(asked, words[{"yes": 0, "no": 1, "maybe": min(2, len(words) - 1)}[label]], words)

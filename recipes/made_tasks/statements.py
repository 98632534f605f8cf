"""Does a statement follow from a text: yes, no, or neither."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from texts import Corpus, Row, Text, chosen, is_name, names_in
from wrong import VERBS, beside, falsified

Label = Literal["yes", "no", "maybe"]

# What a sentence makes of a clause in it: so, not so, or open (Karttunen 1971, "Implicative verbs"; what a factive verb
# presupposes survives negation and questions). {X} is somebody, {S} the clause.
_FRAMES: dict[Label, str] = {
    "yes": """{X} knew that {S}.|{X} realised that {S}.|{X} found out that {S}.|{X} was glad that {S}.|
        {X} forgot that {S}.|{X} did not know that {S}.|It is a pity that {S}.|{X} regretted that {S}.|
        {X} noticed that {S}.|{X} remembered that {S}.|It turned out that {S}.|{X} was surprised that {S}.|
        Did {X} know that {S}?|{X} had not noticed that {S}.|{X} was not aware that {S}.|It annoyed {X} that {S}.|
        {X} had to admit that {S}.|{X} learned that {S}.|Of course {S}.|If only {X} had known that {S}!|
        {X} saw that {S}.|{X} could prove that {S}.|Why did {X} not mind that {S}?""",
    "no": """{X} did not think that {S}.|I do not believe that {S}.|It is not true that {S}.|
        {X} was wrong to think that {S}.|Nobody thought that {S}.|{X} pretended that {S}.|{X} lied that {S}.|
        {X} doubted that {S}.|It is impossible that {S}.|I doubt that {S}.|{X} wished that {S}.|
        {X} did not say that {S}, for it was not so.|It cannot be that {S}.|{X} only dreamt that {S}.|
        {X} does not feel that {S}.|I would not say that {S}.|{X} denied that {S}.|It is not as if {S}.|
        There is no evidence that {S}.|{X} did not believe that {S}.|I do not think that {S}.""",
    "maybe": """{X} asked whether {S}.|If {S}, {X} will be told.|Perhaps {S}.|{X} hoped that {S}.|
        {X} claimed that {S}.|It may be that {S}.|Does {X} think that {S}?|{X} wondered if {S}.|Suppose that {S}.|
        It is possible that {S}.|Some say that {S}.|{X} is not sure whether {S}.|{X} was afraid that {S}.|
        Could it be that {S}?|{X} expected that {S}.|Let us assume that {S}.|Can {X} prove that {S}?|
        {X} suggested that {S}.|Unless {S}, nothing will change.""",
}
_SOMEBODY = ("he", "she", "they", "people", "Mary", "John", "the man", "my brother", "the minister", "we", "I")
_TWO = [("Yes", "No"), ("Yes", "No"), ("True", "False")]
_THREE = [
    ("Yes", "No", "Maybe"), ("Yes", "No", "Maybe"), ("True", "False", "Neither"), ("Always", "Never", "Sometimes"),
    ("Correct", "Incorrect", "Inconclusive"), ("Guaranteed", "Impossible", "Possible"),
    ("True", "False", "Inconclusive"),
]  # fmt: skip


def follows(corpus: Corpus, draw: random.Random, most: int = 36_000) -> Iterator[Row]:
    """A summary's statements about its text, and what a few sentences say; made false, or what they don't say."""
    statements = [(text, said, text.whole[:1400]) for text, said in corpus.stated]
    for text in corpus.texts:
        for _ in range(2):
            start = draw.randrange(max(1, len(text.sentences) - 1))
            window = text.sentences[start : start + draw.choice((1, 1, 2, 3))]
            premise = " ".join(window)
            if 60 < len(premise) < 900:
                statements.append((text, _part(draw.choice(window), draw), premise))
    draw.shuffle(statements)
    for text, said, premise in statements[:most]:
        label: Label = draw.choice(("yes", "no", "maybe"))
        claim: str | None = said
        if label == "no":
            claim = falsified(said, text, draw)
        elif label == "maybe":
            claim = _unsaid(said, text, premise, corpus, draw)
        if claim is not None and 12 < len(claim) < 320:
            yield _worded(premise, claim, label, draw)


def embedded(corpus: Corpus, draw: random.Random, tries: int = 30_000) -> Iterator[Row]:
    """Statements that stand in the text as a clause, under something that says whether they hold."""
    frames = {label: [" ".join(frame.split()) for frame in told.split("|")] for label, told in _FRAMES.items()}
    for _ in range(tries):
        text = draw.choice(corpus.texts)
        said = _part(draw.choice(text.sentences), draw).strip()
        first = said.partition(" ")[0]
        if not re.match(r"^[A-Z][\w' ,-]{20,120}\.$", said) or first in ("But", "And", "So", "If"):
            continue
        clause = (said if first == "I" or is_name(first) else said[:1].lower() + said[1:]).rstrip(".")
        label: Label = draw.choice(("yes", "no", "maybe"))
        told = draw.choice(frames[label]).replace("{X}", draw.choice([*_SOMEBODY, *text.names[:2]]))
        told = told.replace("{S}", clause)
        told = told[:1].upper() + told[1:]
        around = [sentence for sentence in text.sentences if said[:-1] not in sentence and len(sentence) < 200]
        if around and draw.random() < 0.5:
            told = f"{draw.choice(around)} {told}"
        if draw.random() < 0.3:
            told = f"{told} {draw.choice(draw.choice(corpus.texts).sentences)[:120]}"
        if label != "maybe" and draw.random() < 0.15 and VERBS.search(said):
            said, label = VERBS.sub(lambda verb: f"{verb[0]} not", said, count=1), "no" if label == "yes" else "yes"
        yield _worded(told, said, label, draw)


def verified(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """A question about a text, and an answer that is right, or another span of the text."""
    for text, row in corpus.asked:
        questions = re.findall(r"[^.?!\n:]{8,}\?", row["instruction"].replace(text.whole, " "))
        answer = row["references"][0] if row["references"] else ""
        wrong = beside(answer, text, draw)
        if len(questions) != 1 or not wrong or answer.endswith("?"):
            continue
        right = draw.random() < 0.5
        said = answer if right else draw.choice(wrong)
        words = draw.choice([("Yes", "No"), ("True", "False"), ("Correct", "Incorrect")])
        end = f"{words[0]} or {words[1].lower()}?"
        passage, question = text.whole[:1500], questions[0].strip()
        asked = draw.choice(
            [
                f'{passage}\n\nThe answer to "{question}" is "{said}". {end}',
                f"Passage: {passage}\nQuestion: {question}\nAnswer: {said}\n{end}",
            ]
        )
        yield chosen(asked, words[0] if right else words[1], words)


def _unsaid(said: str, text: Text, premise: str, corpus: Corpus, draw: random.Random) -> str | None:
    """What the premise does not state: another sentence of its text, or one elsewhere about somebody in it."""
    own = list(text.sentences)
    near = [s for name in names_in(said)[:3] for other, s in corpus.naming[name][:200] if other is not text]
    pools = [[s for s in pool if 25 < len(s) < 250 and s not in premise] for pool in (own, near)]
    pools = [pool for pool in pools if pool]
    return _part(draw.choice(draw.choice(pools)), draw) if pools else None


def _part(sentence: str, draw: random.Random) -> str:
    """Something that a sentence says: it, less an insertion between commas, or a clause of it."""
    apposed = re.match(r"^([A-Z][\w. ]{2,40}), ((?:a|an|the) [^,]{5,80}), ", sentence)
    if apposed and draw.random() < 0.7:
        return f"{apposed[1]} is {apposed[2]}."
    ways = [re.sub(r", (?:who|which|where|the|a|an|whose) [^,]{3,120},", "", sentence, count=1)]
    for mark in (", and ", ", but ", "; ", " because ", ", while ", ", which ", ", who ", " after ", " when "):
        before, found, _ = sentence.partition(mark)
        if found and len(before) > 25:
            ways.append(before.rstrip(",;") + ".")
    return draw.choice(ways)


def _worded(premise: str, claim: str, label: Label, draw: random.Random) -> Row:
    words: Sequence[str] = draw.choice(_TWO if draw.random() < 0.4 else _THREE)
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
        ]
    )
    return chosen(asked, words[{"yes": 0, "no": 1, "maybe": min(2, len(words) - 1)}[label]], words)

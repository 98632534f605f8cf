"""Clauses that stand in a text under something that says whether they hold: "he knew that", "I doubt that", "if"."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from statements import Label, worded
from texts import Corpus, Row, Text
from wrong import VERBS

_SUBJECT = r"(?:I|he|she|it|they|we|you|there|the|this|these|those|his|her|their|my|our|its|an?|some|[A-Z][a-z]+)"
_CLAUSE = rf"({_SUBJECT} [\w' -]{{12,110}}?)(?=[.,;!?\"]|$| but | because | and | so )"
_FINITE = re.compile(
    r"^(?:\S+ ){1,4}(?:is|was|are|were|will|would|can|could|has|have|had|did|does|do|should|must|\w{2,}ed|\w{3,}s|went|"
    r"came|made|got|said|took|gave|lost|won|'re|'s)\b|^\w+'(?:s|re|ll|d|ve) "
)
_NOT = r"(?:don't|doesn't|didn't|do not|does not|did not|never|wouldn't|can't|cannot)"
_VERBS_OF: dict[Label, str] = {
    "yes": r"(?:know|knew|known|knows|realis\w+|realiz\w+|notice[sd]?|discover\w*|found out|regret\w*|forgot|learned|"
    r"saw|remember(?:ed|s)?|glad|sorry|surprised|aware|proud|happy|sad|annoyed|pity|fact|admitted|proved|"
    r"recogni[sz]ed) that",
    "no": rf"(?:{_NOT} (?:think|believe|feel|suppose|imagine|expect)(?: that)?|(?:doubt|doubts|doubted|wish|wishes|"
    r"wished|pretend|pretends|pretended)(?: that)?)",
    "maybe": r"(?:whether|(?:wonder(?:s|ed)?|asked) if|(?:hope[sd]?|suspect(?:s|ed)?|fear(?:s|ed)?|likely) that)",
}
_OTHERS = (
    r"(?:said|says|believes?d?|thinks?|thought|told \w+|claim(?:s|ed)?|announced|explained|argues?d?|because)(?: that)?"
)
_NATURAL = {label: re.compile(rf"(?i:\b{verbs}) {_CLAUSE}") for label, verbs in _VERBS_OF.items()}
_ANY = re.compile(rf"(?i:\b(?:{'|'.join([*_VERBS_OF.values(), _OTHERS])})) {_CLAUSE}")
_TURNED = re.compile(r"\b(?:no|not|never|nobody|without)\b|n't\b", re.IGNORECASE)  # "there is no doubt that" is a yes
_IF = re.compile(rf"\b[Ii]f {_CLAUSE}")
_FRAMES: dict[Label, str] = {
    "yes": """
{X} knew that {S}.|{X} realised that {S}.|{X} found out that {S}.|{X} was glad that {S}.|{X} forgot that {S}.
{X} did not know that {S}.|It is a pity that {S}.|{X} regretted that {S}.|{X} noticed that {S}.
{X} remembered that {S}.|It turned out that {S}.|{X} was surprised that {S}.|Did {X} know that {S}?
{X} had not noticed that {S}.|{X} was not aware that {S}.|It annoyed {X} that {S}.|{X} had to admit that {S}.
{X} learned that {S}.|Yes, of course {S}.|If only {X} had known that {S}!|{X} saw that {S}.
{X} could prove that {S}.|Why did {X} not mind that {S}?|{X} didn't realise {S}.|Isn't it strange that {S}?
Had {X} forgotten that {S}?|If {X} finds out that {S}, it is over.
""",
    "no": """
{X} did not think that {S}.|I do not believe that {S}.|It is not true that {S}.|{X} was wrong to think that {S}.
Nobody thought that {S}.|{X} pretended that {S}.|{X} lied that {S}.|{X} doubted that {S}.
It is impossible that {S}.|I doubt that {S}.|{X} wished that {S}.|It cannot be that {S}.|I don't think {S}.
I don't believe {S}.|I didn't think {S}.|{X} only dreamt that {S}.|{X} does not feel that {S}.
I would not say that {S}.|I don't suppose {S}.|No, I can't say {S}.|It is not as if {S}.
{X} did not believe {S}.|I do not think that {S}.|I just don't feel {S}.|{X} never thought {S}.
{X} couldn't imagine that {S}.|You can't tell me that {S}.|I wish {S}.|It's not that {S}.
""",
    "maybe": """
{X} asked whether {S}.|If {S}, {X} will be told.|Perhaps {S}.|{X} hoped that {S}.|{X} claimed that {S}.
It may be that {S}.|Does {X} think that {S}?|{X} wondered if {S}.|Suppose that {S}.|It is possible that {S}.
Some say that {S}.|{X} is not sure whether {S}.|{X} was afraid that {S}.|Could it be that {S}?
{X} expected that {S}.|Let us assume that {S}.|Can {X} prove that {S}?|{X} suggested that {S}.
Unless {S}, nothing will change.|Do you think {S}?|{X} might believe that {S}.
""",
}
_FRAMED = {label: re.split(r"[|\n]", frames.strip()) for label, frames in _FRAMES.items()}
_SOMEBODY = (
    "he", "she", "they", "people", "Mary", "John", "the man", "my brother", "the minister", "the doctor", "we", "I",
)  # fmt: skip
_OPENERS = ("Well, ", "Uh, ", "Yeah, ", "So ", "And ", "But ", "Right, ", "I mean, ", "Hmm, ", "")


def clauses(corpus: Corpus, draw: random.Random, framed: int = 20_000) -> Iterator[Row]:
    """As texts have them, and under other words in their place."""
    pool: list[tuple[Text, int, str]] = []
    for text in corpus.texts:
        for place, sentence in enumerate(text.sentences):
            for label, pattern in _NATURAL.items():
                found = pattern.search(sentence)
                if found and _whole(found[1]) and (label == "yes" or not _TURNED.search(sentence[: found.start()])):
                    yield _asked(text, place, sentence, found[1], label, draw)
            found = _IF.search(sentence)
            if found and _whole(found[1]) and draw.random() < 0.3:
                yield _asked(text, place, sentence, found[1], "maybe", draw)
            found = _ANY.search(sentence)
            if found and _whole(found[1]):
                pool.append((text, place, found[1]))
    draw.shuffle(pool)
    for text, place, clause in (pool * 3)[:framed]:
        label: Label = draw.choices(("yes", "no", "maybe"), (42, 42, 16))[0]
        told = _framed(clause, label, draw.choice((*_SOMEBODY, *text.names[:2])), draw)
        claim = clause
        if label != "maybe" and draw.random() < 0.12 and VERBS.search(clause):
            claim = VERBS.sub(lambda verb: f"{verb[0]} not", clause, count=1)
            label = "no" if label == "yes" else "yes"
        yield _asked(text, place, told, claim, label, draw)


def _framed(clause: str, label: Label, somebody: str, draw: random.Random) -> str:
    told = draw.choice(_FRAMED[label])
    if draw.random() < 0.3:
        spoken = told if told.startswith(("{", "I ", "I'")) else told[:1].lower() + told[1:]
        told = draw.choice(_OPENERS) + spoken
    told = told.replace("{X}", somebody).replace("{S}", clause)
    return told[:1].upper() + told[1:]


def _asked(text: Text, place: int, told: str, claim: str, label: Label, draw: random.Random) -> Row:
    before = " ".join(text.sentences[max(0, place - draw.choice((0, 1, 1, 2))) : place])[-400:]
    if draw.random() < 0.3 and before:
        told = f"B: {before} A: {told}"
    elif before:
        told = f"{before} {told}"
    return worded(told, f"{claim[:1].upper()}{claim[1:]}.", label, draw)


def _whole(clause: str) -> bool:
    return len(clause.split()) >= 4 and _FINITE.search(clause) is not None

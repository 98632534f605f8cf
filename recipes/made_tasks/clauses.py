"""Clauses that stand in a text under something that says whether they hold: "he knew that", "I doubt that", "if"."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from statements import Label, worded
from texts import Corpus, Row, Text
from wrong import VERBS

_SUBJECT = r"(?:I|he|she|it|they|we|you|there|the|this|these|those|his|her|their|my|our|its|an?|some|[A-Z][a-z]+)"
_CLAUSE = rf"({_SUBJECT}(?:'\w+)? [\w' -]{{12,110}}?)(?=[.,;!?\"]|$| but | because | and | so )(?! because )"
_FINITE = re.compile(
    r"^(?:\S+ ){1,4}(?:is|was|are|were|will|would|can|could|has|have|had|did|does|do|should|must|went|came|made|got|"
    r"said|took|gave|lost|won|died|lived|worked|wanted|needed|looked|seemed|became|began|wrote|knew|felt|found|left)\b|"
    r"^\w+'(?:s|re|ll|d|ve) "
)
_CUT = re.compile(r"\b(?:is|was|are|were|be|been|not|the|an?|of|to|in|that|who|which)$")
_SURE = (
    r"know|knew|knows|realis\w+|realiz\w+|noticed|found out|regret\w*|forgot|learned|remembered|glad|sorry|surprised"
)
_MOSTLY = r"known|fact|admitted|proved|discovered|recogni[sz]ed|saw"  # not when they are negated
_NOT = r"(?:don't|doesn't|didn't|do not|does not|did not)"
_OPEN = r"\b(?:if|would|denied|deny|unless|whether)\b"
_NEGATED = r"\b(?:no|not|never|nobody|without)\b|n't\b"  # "there is no doubt that": not a no
_NATURAL: list[tuple[Label, str, str]] = [  # what stands before the clause, and what must not stand before that
    ("yes", rf"(?:{_SURE}|aware|proud|happy|sad|annoyed|pity) that", _OPEN),
    ("yes", rf"(?:{_MOSTLY}) that", rf"{_OPEN}|{_NEGATED}"),
    (
        "no",
        rf"(?:{_NOT} (?:think|believe|feel|suppose)|doubt(?:s|ed)?|wish(?:es|ed)?|pretend(?:s|ed)?)(?: that)?",
        rf"{_OPEN}|{_NEGATED}",
    ),
    (
        "maybe",
        r"(?:whether|(?:wonder(?:s|ed)?|asked) if|(?:hope[sd]?|suspect(?:s|ed)?|fear(?:s|ed)?|likely) that)",
        r"(?!)",  # nothing
    ),
    ("maybe", r"if", r"\b(?:as|only|even|wonder(?:s|ed)?|asked) $"),
]
_OTHERS = (
    r"(?:said|says|believes?d?|thinks?|thought|told \w+|claim(?:s|ed)?|announced|explained|argues?d?|because)(?: that)?"
)
_PATTERNS = [
    (label, re.compile(rf"(?i:\b{words}) {_CLAUSE}"), re.compile(unless, re.IGNORECASE))
    for label, words, unless in _NATURAL
]
_ANY = re.compile(rf"(?i:\b(?:{'|'.join([*(words for _, words, _ in _NATURAL), _OTHERS])})) {_CLAUSE}")
_UNREAL = re.compile(r"\b(?:had|were)\b")  # "if he had been there" is nearer to a no
_OF_OTHERS = re.compile(r"\b(?:who|which|that|some|nobody|no|never|none|all|every)\b")  # "not" would not turn it round
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
{X} does not suppose that {S}.|{X} would be wrong to say that {S}.|I wish {S}.|It's not that {S}.
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
_SOMEBODY = ("Mary", "John", "the man", "my brother", "the minister", "the doctor", "our teacher", "the old lady")
_OPENERS = ("Well, ", "Uh, ", "Yeah, ", "So ", "And ", "But ", "Right, ", "I mean, ", "Hmm, ", "")


def clauses(corpus: Corpus, draw: random.Random, framed: int = 20_000) -> Iterator[Row]:
    """As texts have them, and under other words in their place."""
    pool: list[tuple[Text, int, str]] = []
    for text in corpus.texts:
        for place, sentence in enumerate(text.sentences):
            for label, pattern, unless in _PATTERNS:
                found = pattern.search(sentence)
                if not found or unless.search(sentence[: found.start()]) or not _whole(found[1]):
                    continue
                if label != "maybe" or (not _UNREAL.search(found[1]) and draw.random() < 0.5):  # "if" is everywhere
                    yield _asked(text, place, sentence, found[1], label, draw)
            found = _ANY.search(sentence)
            if found and _whole(found[1]):
                pool.append((text, place, found[1]))
    draw.shuffle(pool)
    for text, place, clause in (pool * 3)[:framed]:
        label: Label = draw.choices(("yes", "no", "maybe"), (42, 42, 16))[0]
        told = _framed(clause, label, draw.choice((*_SOMEBODY, *text.names[:2])), draw)
        claim = clause
        if label != "maybe" and draw.random() < 0.12 and VERBS.search(clause) and not _OF_OTHERS.search(clause):
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
    return len(clause.split()) >= 4 and _FINITE.search(clause) is not None and _CUT.search(clause) is None

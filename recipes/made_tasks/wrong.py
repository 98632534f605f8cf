"""What makes a statement false, and an answer wrong, without leaving its text."""

from __future__ import annotations

import random
import re

from texts import NUMBER, Text, apart, is_name, names_in

VERBS = re.compile(r"\b(is|was|are|were|will|would|can|could|should|has been|have been|had been)\b(?! not|n't)")
_PAIRS = """
more less;increase decrease;increased decreased;rise fall;rose fell;won lost;win lose;before after;first last;
up down;high low;higher lower;large small;larger smaller;old young;new old;best worst;better worse;northern southern;
north south;eastern western;east west;men women;man woman;boy girl;son daughter;father mother;brother sister;
husband wife;early late;earlier later;inside outside;allowed forbidden;accepted rejected;love hate;loves hates;
always never;all none;many few;most few;hot cold;good bad;bought sold;open closed;opened closed;began ended;start end;
started ended;with without;alive dead;born killed;male female;strong weak;rich poor;public private;true false;
agreed refused;supports opposes;support oppose;passed failed;succeeded failed;left right;happy sad;easy difficult;
above below;local foreign;cheap expensive;success failure
"""
_OPPOSITES: dict[str, str] = {}
for _one, _other in (pair.split() for pair in _PAIRS.split(";")):
    _OPPOSITES |= {_one: _other, _other: _one}


def falsified(said: str, text: Text, draw: random.Random) -> str | None:
    """A statement made false: another name or number of the text, an opposite, a negation; None: there is none."""
    ways: list[str] = []
    names = [name for name in dict.fromkeys(names_in(said)) if name in text.whole]
    others = [name for name in text.names if name not in said and all(apart(name, mine) for mine in names)]
    if names and others:
        ways += [re.sub(rf"\b{re.escape(draw.choice(names))}\b", draw.choice(others), said)] * 2
    if numbers := NUMBER.findall(said):
        number = draw.choice(numbers)
        news = [found for found in NUMBER.findall(text.whole) if found != number] or [str(draw.randint(2, 60))]
        ways += [re.sub(rf"\b{re.escape(number)}\b", draw.choice(news), said, count=1)] * 2
    if opposed := [word for word in said.split() if word in _OPPOSITES]:
        word = draw.choice(opposed)
        ways += [re.sub(rf"\b{word}\b", _OPPOSITES[word], said, count=1)] * 2
    if " not " in said and " not only " not in said:
        ways.append(said.replace(" not ", " ", 1))
    elif VERBS.search(said):
        ways.append(VERBS.sub(lambda verb: f"{verb[0]} not", said, count=1))
    ways = [way for way in ways if way != said]
    return draw.choice(ways) if ways else None


def distractors(answer: str, text: Text, draw: random.Random) -> list[str]:
    """Up to three spans of the text of the answer's kind, with none of its words."""
    if not answer or len(answer) > 120 or answer not in text.whole:
        return []
    if NUMBER.fullmatch(answer):
        spans = NUMBER.findall(text.whole)
    elif is_name(answer):
        spans = list(text.names)
    else:
        words, count = text.whole.split(), len(answer.split())
        starts = [draw.randrange(max(1, len(words) - count)) for _ in range(6)]
        spans = [" ".join(words[start : start + count]).strip(" ,.;:()\"'") for start in starts]
    own = set(answer.lower().split())
    spans = [span for span in dict.fromkeys(spans) if span and not own & set(span.lower().split())]
    return draw.sample(spans, min(3, len(spans)))

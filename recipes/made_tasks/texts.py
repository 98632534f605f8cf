"""The texts in T0's prompts, their sentences, and the names in them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]  # an instance, as it is read or written

SUMMARIES = ("xsum", "samsum", "cnn_dailymail", "multi_news")  # their references are statements about the text
_EXTRACTED = ("adversarial_qa", "squad_v2", "quoref", "duorc", "ropes")  # theirs are mostly words of the text
_WITH_TEXTS = (
    *SUMMARIES, *_EXTRACTED, "cosmos_qa", "imdb", "race", "quail", "dream", "wiki_hop", "super_glue-boolq",
    "super_glue-multirc", "super_glue-record", "ag_news", "dbpedia_14", "amazon_polarity", "social_i_qa",
)  # fmt: skip
_NOT_NAMES = frozenset(
    "I The A An In On At It He She They We You But And For With As Of To By From This That These Those His Her Their "
    "My Our Your If When While After Before There Here What Who Where Why How Which Yes No Not So Then Also Monday "
    "Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August September "
    "October November December Mr Mrs Ms Dr Question Answer Context Passage Article Title".split()
)
NAME = re.compile(r"\b[A-Z][a-z]{2,}(?: [A-Z][a-z]+){0,2}\b")
NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
SENTENCE = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[A-Z\"'(])")


@dataclass(frozen=True)
class Text:
    """A text of a prompt."""

    whole: str
    sentences: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """`rows` as they came; the texts in them; with its text, what a summary states, and a question about it; and who
    is named in which sentences."""

    rows: Sequence[Row]
    texts: Sequence[Text]
    stated: Sequence[tuple[Text, str]]
    asked: Sequence[tuple[Text, Row]]
    naming: dict[str, list[tuple[Text, str]]]


def read_corpus(rows: Sequence[Row]) -> Corpus:
    """A line that many prompts have is their template's, and no text."""
    holding = [row for row in rows if row["task"].startswith(_WITH_TEXTS)]
    prompts_with = Counter(line for row in holding for line in set(row["instruction"].split("\n")))
    texts: dict[str, Text] = {}
    stated: list[tuple[Text, str]] = []
    asked: list[tuple[Text, Row]] = []
    for row in holding:
        whole = _text(row, prompts_with)
        if len(whole) < 80:
            continue
        text = texts.setdefault(whole, _made(whole))
        if row["task"].startswith(SUMMARIES):
            stated += [(text, said) for reference in row["references"][:1] for said in _statements(reference)]
        if row["task"].startswith(_EXTRACTED) and not row["choices"]:
            asked.append((text, row))
    naming: dict[str, list[tuple[Text, str]]] = defaultdict(list)
    for text in texts.values():
        for sentence in text.sentences:
            for name in dict.fromkeys(names_in(sentence)):
                naming[name].append((text, sentence))
    return Corpus(rows, list(texts.values()), stated, asked, naming)


def names_in(sentence: str) -> list[str]:
    """Those that are surely names: not a single word at the beginning."""
    found = [match[0] for match in NAME.finditer(sentence) if match.start() > 0 or " " in match[0]]
    return [name for name in found if name.split()[0] not in _NOT_NAMES]


def is_name(text: str) -> bool:
    """Whether all of it is one."""
    return NAME.fullmatch(text) is not None and text.split()[0] not in _NOT_NAMES


def tidy(text: str) -> str:
    """Without the spaces of tokenised text."""
    spaced = re.sub(r" ([.,;:!?)])", r"\1", re.sub(r"[ \t]+", " ", text))
    return spaced.replace(" n't", "n't").replace(" 's", "'s").strip()


def chosen(instruction: str, right: str, choices: Sequence[str]) -> Row:
    """An instance with choices."""
    return {"instruction": instruction, "references": [right], "choices": list(choices)}


def of(row: Row, **changed: Any) -> Row:
    """A question of T0, changed."""
    return {key: row[key] for key in ("id", "task", "instruction", "references")} | changed


def _text(row: Row, prompts_with: Counter[str]) -> str:
    lines = [line.strip() for line in row["instruction"].split("\n") if prompts_with[line] < 4]
    if row["task"].startswith(("samsum", "dream")):  # dialogues: short lines
        whole = "\n".join(line for line in lines if len(line) > 60 or re.match(r"^\w+: ", line))
    else:
        whole = " ".join(line for line in lines if len(line) > 60)
    return re.sub(r"^[\w ,'()]{3,60}: ", "", tidy(whole))[:4000]


def _made(whole: str) -> Text:
    split = (sentence.strip() for sentence in SENTENCE.split(whole.replace("\n", " ")))
    sentences = tuple(s for s in split if len(s) > 15 and "?" not in s and "Question" not in s) or (whole,)
    return Text(whole, sentences, tuple(dict.fromkeys(name for s in sentences for name in names_in(s))))


def _statements(reference: str) -> list[str]:
    parts = [part for part in re.split(r"\s*\n+\s*| {2,}", tidy(reference)) if part]
    told = [sentence for part in parts for sentence in SENTENCE.split(part)]
    return [said for said in told[:4] if 25 < len(said) < 300 and "?" not in said]

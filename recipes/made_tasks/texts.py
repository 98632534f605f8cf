"""The texts in T0's prompts, their sentences, and the names in them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
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
    "October November December Mr Mrs Ms Dr Question Answer Context Passage Article Title Given However Now Regulators "
    "Code Note Please Possible Options".split()
)
NAME = re.compile(r"\b[A-Z][a-z]{2,}(?: [A-Z][a-z]+){0,2}\b")
NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
_OF_TEMPLATE = re.compile(r"\b(Question|options? (are|is)|come up with a|I want to test|answer to the|Can you tell)\b")
SENTENCE = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[A-Z\"'(])")


@dataclass(frozen=True)
class Text:
    """A text of a prompt."""

    whole: str
    sentences: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """`rows` as they came; the texts in them; with their texts, the rows that ask for a summary, and those that ask
    about the text; and who is named in which sentences."""

    rows: Sequence[Row]
    texts: Sequence[Text]
    summarised: Sequence[tuple[Text, Row]]
    asked: Sequence[tuple[Text, Row]]
    naming: dict[str, list[tuple[Text, str]]]


def read_corpus(rows: Sequence[Row]) -> Corpus:
    """A line that stands in prompts about different texts is their template's."""
    holding = [row for row in rows if row["task"].startswith(_WITH_TEXTS)]
    beside: dict[str, set[str]] = defaultdict(set)
    for row in holding:
        lines = set(row["instruction"].split("\n"))
        longest = max(lines, key=lambda line: (len(line), line))
        for line in lines:
            if len(beside[line]) < 3:
                beside[line].add(longest)
    texts: dict[str, Text] = {}
    summarised: list[tuple[Text, Row]] = []
    asked: list[tuple[Text, Row]] = []
    for row in holding:
        whole = _text(row, lambda line: len(beside[line]) == 3)
        if len(whole) < 80:
            continue
        text = texts.setdefault(whole, _read(whole))
        answered = not row["choices"] and len(row["references"]) > 0
        if answered and row["task"].startswith(SUMMARIES) and len(row["references"][0]) < len(whole):
            summarised.append((text, row))  # the other way round it asks for a text to a summary
        if answered and row["task"].startswith(_EXTRACTED):
            asked.append((text, row))
    naming: dict[str, list[tuple[Text, str]]] = defaultdict(list)
    for text in texts.values():
        for sentence in text.sentences:
            for name in dict.fromkeys(names_in(sentence)):
                naming[name].append((text, sentence))
    return Corpus(rows, list(texts.values()), summarised, asked, naming)


def statements_of(reference: str) -> list[str]:
    """What a summary says, sentence by sentence."""
    parts = [part for part in re.split(r"\s*\n+\s*| {2,}", tidy(reference)) if part]
    told = [sentence for part in parts for sentence in SENTENCE.split(part)]
    return [said for said in told[:4] if 25 < len(said) < 300 and "?" not in said]


def names_in(sentence: str) -> list[str]:
    """Those that are surely names: not a single word at the beginning."""
    found = [match[0] for match in NAME.finditer(sentence) if match.start() > 0 or " " in match[0]]
    return [name for name in found if name.split()[0] not in _NOT_NAMES]


def is_name(text: str) -> bool:
    """Whether all of it is one."""
    return NAME.fullmatch(text) is not None and text.split()[0] not in _NOT_NAMES


def apart(one: str, other: str) -> bool:
    """Whether two names share no word: else they may be one's."""
    return set(one.split()).isdisjoint(other.split())


def tidy(text: str) -> str:
    """Without the spaces of tokenised text."""
    spaced = re.sub(r" ([.,;:!?)])", r"\1", re.sub(r"[ \t]+", " ", text))
    return spaced.replace(" n't", "n't").replace(" 's", "'s").strip()


def chosen(instruction: str, right: str, choices: Sequence[str]) -> Row:
    """An instance with choices."""
    return {"instruction": instruction, "references": [right], "choices": list(choices)}


def changed(row: Row, **fields: Any) -> Row:
    """A question of T0, with some fields changed."""
    kept = ("id", "task", "template", "split", "group", "instruction", "references")
    return {key: row[key] for key in kept if row[key] is not None} | fields


def _text(row: Row, of_template: Callable[[str], bool]) -> str:
    lines = [line.strip() for line in row["instruction"].split("\n") if not of_template(line)]
    if row["task"].startswith(("samsum", "dream")):  # dialogues: short lines
        whole = " ".join(line for line in lines if len(line) > 60 or re.match(r"^\w+: ", line))
    else:
        whole = " ".join(line for line in lines if len(line) > 60)
    return re.sub(r"^[\w ,'()]{3,60}: ", "", tidy(whole))[:4000]


def _read(whole: str) -> Text:
    split = (sentence.strip() for sentence in SENTENCE.split(whole))
    sentences = tuple(s for s in split if len(s) > 15 and "?" not in s and not _OF_TEMPLATE.search(s)) or (whole,)
    return Text(whole, sentences, tuple(dict.fromkeys(name for s in sentences for name in names_in(s))))

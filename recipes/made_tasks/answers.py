"""T0's own questions with wrong answers out of their texts, choices in another order, spoiled references."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from texts import SENTENCE, Corpus, Row, changed
from wrong import distractors, falsified

_LISTING = (
    "race", "quail", "dream", "cosmos_qa", "ai2_arc", "cos_e", "openbookqa", "sciq", "qasc", "social_i_qa",
    "commonsense_qa",
)  # fmt: skip
_LETTERED = re.compile(r"^\s*[-(]?\s*([A-H])[).:]\s?(?=\S)")


def distracted(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """Questions about a text with wrong answers out of it; summaries with one that tells it wrongly."""
    for text, row in corpus.asked:
        if wrong := distractors(row["references"][0], text, draw):
            yield changed(row, negatives=wrong)
    for text, row in corpus.summarised:
        reference = row["references"][0]
        said = draw.choice(SENTENCE.split(reference))
        false = falsified(said, text, draw)
        if false is not None and len(reference) < 600:
            yield changed(row, negatives=[reference.replace(said, false, 1)])


def reordered(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """Questions whose prompt lists the choices, in another order: what their letters stand for changes."""
    for row in corpus.rows:
        if not row["choices"] or not row["task"].startswith(_LISTING) or len(row["references"]) != 1:
            continue
        lines, choices = row["instruction"].split("\n"), row["choices"]
        places = _places(lines, choices)
        lettered = all(len(choice) == 1 for choice in choices)
        if places is None or row["references"][0] not in choices:
            continue
        texts = [lines[place][start:] for place, start in places]
        for copy in range(2 if row["task"].startswith(("race", "quail", "dream")) else 1):  # of which there are few
            order = draw.sample(range(len(choices)), len(choices))
            if order == sorted(order):
                continue
            for (place, start), taken in zip(places, order, strict=True):
                lines[place] = lines[place][:start] + texts[taken]
            right = row["references"][0]
            if lettered:
                right = choices[order.index(choices.index(right))]
            asked = {"instruction": "\n".join(lines), "references": [right], "choices": choices}
            yield changed(row, id=f"{row['id']}-reordered-{copy}", group=row["group"] or row["id"], **asked)


def _places(lines: list[str], choices: list[str]) -> list[tuple[int, int]] | None:
    """For each choice the line that lists it, and where in it its text begins; None: they aren't all listed."""
    if all(len(choice) == 1 for choice in choices):
        found = {match[1]: (place, match.end()) for place, line in enumerate(lines) if (match := _LETTERED.match(line))}
    else:
        marks = {choice: re.compile(rf"\W*(?:[A-H][).:])?\s*{re.escape(choice)}") for choice in choices}
        found = {
            choice: (place, len(line) - len(choice))
            for choice, mark in marks.items()
            for place, line in enumerate(lines)
            if mark.fullmatch(line)
        }
    places = [found[choice] for choice in choices if choice in found]
    return places if len({place for place, _ in places}) == len(choices) else None


def spoiled(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """References shortened, and with a sentence of another text, or that alone: samples for Rouge-L to label."""
    for row in corpus.rows:
        reference = row["references"][0] if row["references"] else ""
        words = reference.split()
        if row["choices"] or len(words) < 5 or draw.random() < 0.3:
            continue
        short = " ".join(words[: max(2, round(len(words) * draw.uniform(0.25, 0.8)))])
        other = draw.choice(draw.choice(corpus.texts).sentences)
        strayed = draw.choice([f"{reference} {other}", f"{short} {other}", other])
        candidates = [{"model": "shortened", "response": short}, {"model": "strayed", "response": strayed}]
        yield changed(row, candidates=candidates)

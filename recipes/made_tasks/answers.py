"""T0's own questions with wrong answers out of their texts, choices in another order, spoiled references."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from texts import SENTENCE, SUMMARIES, Corpus, Row, Text, names_in, of, tidy
from wrong import beside, falsified

_LISTING = (
    "race", "quail", "dream", "cosmos_qa", "ai2_arc", "cos_e", "openbookqa", "sciq", "qasc", "social_i_qa",
    "commonsense_qa",
)  # fmt: skip
_LETTERED = re.compile(r"^\s*[-(]?\s*([A-H])[).:]\s?(?=\S)")


def distracted(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """Questions about a text with wrong answers out of it; summaries with one that tells it wrongly."""
    for text, row in corpus.asked:
        if row["references"] and (wrong := beside(row["references"][0], text, draw)):
            yield of(row, negatives=wrong)
    for row in corpus.rows:
        if row["task"].startswith(SUMMARIES) and not row["choices"] and row["references"]:
            sentences = SENTENCE.split(tidy(row["references"][0]))
            place = draw.randrange(len(sentences))
            text = Text(row["instruction"], (), tuple(dict.fromkeys(names_in(row["instruction"]))))
            if (false := falsified(sentences[place], text, draw)) and len(row["references"][0]) < 600:
                yield of(row, negatives=[" ".join([*sentences[:place], false, *sentences[place + 1 :]])])


def reordered(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """Questions whose prompt lists the choices, in another order: what their letters stand for changes."""
    for row in corpus.rows:
        if not row["choices"] or not row["task"].startswith(_LISTING) or len(row["references"]) != 1:
            continue
        lines, choices = row["instruction"].split("\n"), row["choices"]
        places = _places(lines, choices)
        if places is None:
            continue
        for copy in range(2 if row["task"].startswith(("race", "quail", "dream")) else 1):  # of which there are few
            order = draw.sample(range(len(choices)), len(choices))
            if order == sorted(order):
                continue
            for (place, start), taken in zip(places, order, strict=True):
                lines[place] = (
                    lines[place][:start] + row["instruction"].split("\n")[places[taken][0]][places[taken][1] :]
                )
            right = row["references"][0]
            if all(len(choice) == 1 for choice in choices):
                right = choices[order.index(choices.index(right))]
            asked = {"instruction": "\n".join(lines), "references": [right], "choices": choices}
            yield of(row, id=f"{row['id']}-reordered-{copy}", **asked)


def _places(lines: list[str], choices: list[str]) -> list[tuple[int, int]] | None:
    """For each choice the line that lists it, and where in it its text begins; None: they aren't all listed."""
    if all(len(choice) == 1 for choice in choices):
        found = {match[1]: (place, match.end()) for place, line in enumerate(lines) if (match := _LETTERED.match(line))}
    else:
        found = {
            choice: (place, len(line) - len(choice))
            for choice in choices
            for place, line in enumerate(lines)
            if line.endswith(choice) and len(line) < len(choice) + 6
        }
    places = [found[choice] for choice in choices if choice in found]
    return places if len(set(places)) == len(choices) else None


def spoiled(corpus: Corpus, draw: random.Random) -> Iterator[Row]:
    """References shortened, and with a sentence that does not belong there: recorded samples for Rouge-L to label."""
    for row in corpus.rows:
        reference = row["references"][0] if row["references"] else ""
        words = reference.split()
        if row["choices"] or len(words) < 5 or draw.random() < 0.3:
            continue
        short = " ".join(words[: max(2, round(len(words) * draw.uniform(0.25, 0.8)))])
        other = draw.choice(draw.choice(corpus.texts).sentences)
        padded = draw.choice([f"{reference} {other}", f"{short} {other}", other])
        candidates = [{"model": "shortened", "response": short}, {"model": "padded", "response": padded}]
        yield of(row, candidates=candidates)

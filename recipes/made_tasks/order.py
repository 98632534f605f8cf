"""How does a text go on, and what was the cause of what it tells."""

from __future__ import annotations

import random
from collections.abc import Iterator

from texts import Corpus, Row, Text, chosen

_CAUSES = (" because ", " due to the fact that ")  # what comes behind is the cause
_NOT_CLAUSES = ("of ", "that ", "far", "much ", "many ")
_EFFECTS = (", so ", " as a result, ", ", causing ")


def goes_on(corpus: Corpus, draw: random.Random, tries: int = 45_000) -> Iterator[Row]:
    """The next sentence, or the rest of one; beside later ones of the text, and others."""
    for _ in range(tries):
        text = draw.choice(corpus.texts)
        if len(text.sentences) < 5:
            continue
        place = draw.randrange(1, len(text.sentences) - 2)
        before = " ".join(text.sentences[max(0, place - draw.choice((1, 2, 3))) : place])
        right = text.sentences[place]
        if not 25 < len(right) < 260 or len(before) > 900:
            continue
        later = [sentence for sentence in text.sentences[place + 2 :] if 25 < len(sentence) < 260]
        far = [draw.choice(draw.choice(corpus.texts).sentences) for _ in range(4)]
        wrong = (draw.sample(later, min(len(later), draw.choice((1, 2)))) + far)[: draw.choice((1, 3, 3))]
        if draw.random() < 0.4:
            words = right.split()
            cut = draw.randrange(1, max(2, len(words) // 2))
            before, right = f"{before} {' '.join(words[:cut])}", " ".join(words[cut:])
            wrong = [" ".join(sentence.split()[min(cut, len(sentence.split()) - 2) :]) for sentence in wrong]
        offered = [right, *wrong]
        if len(set(offered)) == len(offered) and min(map(len, offered)) >= 8:
            draw.shuffle(offered)
            yield _continued(before, right, offered, draw)


def _continued(before: str, right: str, offered: list[str], draw: random.Random) -> Row:
    listed = "\n".join(f"- {each}" for each in offered)
    letters = "ABCD"[: len(offered)]
    lettered = "\n".join(f"{letter}) {each}" for letter, each in zip(letters, offered, strict=True))
    one = right if draw.random() < 0.5 else draw.choice(offered)
    asked = f"First: {before}\nThen: {one}\nDoes the second belong after the first? Yes or no?"
    which = f"Here is a beginning: {before}\nWhich of these comes next?\n{lettered}\nReply with its text."
    letter = f"{before} ...\n{lettered}\nWhich letter's text belongs there?"
    return draw.choice(
        [
            chosen(f"{before}\n\nHow does this go on?\n{listed}", right, offered),
            chosen(f"Continue: {before}", right, offered),
            chosen(which, right, offered),
            chosen(letter, letters[offered.index(right)], letters),
            chosen(asked, "Yes" if one == right else "No", ("Yes", "No")),
        ]
    )


def because(corpus: Corpus, draw: random.Random, most: int = 12_000) -> Iterator[Row]:
    """Two clauses that a text joins by "because" and its like; beside another of its sentences, or of another text."""
    found: list[tuple[str, str, bool, Text]] = []
    for text in corpus.texts:
        for sentence in text.sentences:
            for mark in (*_CAUSES, *_EFFECTS):
                before, there, after = sentence.partition(mark)
                if there and 15 < len(before) < 160 and 12 < len(after) < 160 and not after.startswith(_NOT_CLAUSES):
                    found.append((_sentence(before), _sentence(after), mark in _EFFECTS, text))
    draw.shuffle(found)
    for one, other, effect, text in found[:most]:
        near = [s for s in text.sentences if 15 < len(s) < 160 and one[1:-1] not in s and other[1:-1] not in s]
        if draw.random() < 0.5:  # asked the other way round
            one, other, effect = other, one, not effect
        wrong = draw.choice(near) if near and draw.random() < 0.6 else draw.choice(found)[1]
        if other == wrong:
            continue
        offered = [other, wrong]
        draw.shuffle(offered)
        first, second = offered
        what = "effect" if effect else "cause"
        asked = draw.choice(
            [
                f"{one}\nWhich is the {what} of this?\n- {first}\n- {second}",
                f"{one} {'So:' if effect else 'That is since:'}\n- {first}\n- {second}",
                f"{one}\nName a likely {what}.",
                f'What is the {what} of "{one}": "{first}" or "{second}"?',
            ]
        )
        yield chosen(asked, other, offered)


def _sentence(clause: str) -> str:
    clause = clause.strip(" .,;:")
    return f"{clause[:1].upper()}{clause[1:]}."

"""Who is meant."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from texts import Corpus, Row, Text, apart, chosen, names_in


def blanks(corpus: Corpus, draw: random.Random, most: int = 16_000) -> Iterator[Row]:
    """A sentence with a gap, or a pronoun, in place of a name; beside another name of the text."""
    made = 0
    for text in draw.sample(corpus.texts, len(corpus.texts)):
        for place, sentence in enumerate(text.sentences):
            context = text.sentences[place - 1] if place and draw.random() < 0.6 else ""
            whole = f"{context} {sentence}".strip()
            names = names_in(sentence)
            wrong = [name for name in dict.fromkeys(names_in(whole)) if names and apart(name, names[-1])]
            if not wrong or len(whole) > 450:
                continue
            if whole.count(names[-1]) < 2 and draw.random() < 0.6:  # it stands nowhere else: mostly a guess
                continue
            yield _gapped(whole, names[-1], draw.choice(wrong), text, draw)
            made += 1
            break  # one of a text
        if made == most:
            return


def _gapped(whole: str, name: str, wrong: str, text: Text, draw: random.Random) -> Row:
    head, _, tail = whole.rpartition(name)
    pronoun = "she" if re.search(r"\b[Ss]he\b", text.whole) else "he"
    gap, told = f"{head}_{tail}", f"{head}{pronoun}{tail}"
    offered = [name, wrong]
    draw.shuffle(offered)
    first, second = offered
    one = draw.choice(offered)
    yes, true = ("Yes", "True") if one == name else ("No", "False")
    return draw.choice(
        [
            chosen(f"{gap}\nWhat belongs in the gap, {first} or {second}?", name, offered),
            chosen(f"Complete: {gap}\n- {first}\n- {second}", name, offered),
            chosen(f"{gap}\nIs _ {first} or {second}?", name, offered),
            chosen(f'{told}\nIs "{pronoun}" {one} there? Yes or no?', yes, ("Yes", "No")),
            chosen(f"{told}\nThat is: {one}{tail}\nTrue or false?", true, ("True", "False")),
        ]
    )

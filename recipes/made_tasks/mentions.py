"""Who is meant, and is a word used in one sense."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator

from texts import Corpus, Row, Text, chosen, names_in


def blanks(corpus: Corpus, draw: random.Random, most: int = 16_000) -> Iterator[Row]:
    """A sentence with a gap, or a pronoun, in place of a name; beside another name of the text."""
    made = 0
    for text in draw.sample(corpus.texts, len(corpus.texts)):
        for place, sentence in enumerate(text.sentences):
            context = text.sentences[place - 1] if place and draw.random() < 0.6 else ""
            whole = f"{context} {sentence}".strip()
            names = names_in(sentence)
            wrong = [name for name in dict.fromkeys(names_in(whole)) if names and _apart(name, names[-1])]
            if not wrong or len(whole) > 450:
                continue
            if whole.count(names[-1]) < 2 and draw.random() < 0.6:  # it stands nowhere else: mostly a guess
                continue
            yield _gapped(whole, names[-1], draw.choice(wrong), text, draw)
            made += 1
            break  # one of a text
        if made == most:
            return


def _apart(one: str, other: str) -> bool:
    return one not in other and other not in one


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


def senses(corpus: Corpus, draw: random.Random, most: int = 8_000) -> Iterator[Row]:
    """Two sentences with a word: of one text, where it has one sense mostly (Gale et al. 1992), or of two."""
    places: dict[str, list[tuple[Text, str]]] = defaultdict(list)
    for text in corpus.texts:
        for sentence in text.sentences:
            if 20 < len(sentence) < 160:
                for word in dict.fromkeys(re.findall(r"\b[a-z]{4,9}\b", sentence)):
                    places[word].append((text, sentence))
    words = sorted(word for word, found in places.items() if 20 <= len(found) <= 600)
    for _ in range(most if words else 0):
        word = draw.choice(words)
        text, first = draw.choice(places[word])
        same = draw.random() < 0.5
        pool = [sentence for other, sentence in places[word] if (other is text) == same and sentence != first]
        if not pool:
            continue
        second = draw.choice(pool)
        yes, no = draw.choice([("Yes", "No"), ("Yes", "No"), ("True", "False")])
        end = f"{yes} or {no.lower()}?"
        asked = draw.choice(
            [
                f'First: {first}\nSecond: {second}\nDoes "{word}" mean one and the same in both? {end}',
                f"{first}\n{second}\nThe sense of {word} is the same in these two. {end}",
                f'Is one meaning of "{word}" used here twice? {end}\n1. {first}\n2. {second}',
            ]
        )
        yield chosen(asked, yes if same else no, (yes, no))

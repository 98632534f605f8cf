"""Characters that need care: those that nobody sees, and the halves (surrogates) of those that UTF-16 writes in two."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

# White space of every script, control and format characters (Cc, Cf), and what Unicode calls ignorable: soft hyphen,
# joiners, variation selectors, tags; fillers of Hangul and Khmer, the empty cell of Braille, an empty note head.
_UNSEEN = (
    r"\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    r"\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff"
)
_SEEN = re.compile(rf"[^{_UNSEEN}\ud800-\udfff]")
_HALF = re.compile(r"[\ud800-\udfff]")
_FIRST_HALF = re.compile(r"[\ud800-\udbff]\Z")


def is_blank(text: str) -> bool:
    """Whether nobody would see anything of a text: it is empty, or of white space and unseen characters alone."""
    return _SEEN.search(text) is None


def joined(text: str) -> str:
    """The text with each pair of halves as the one character that it is; a lone half stays."""
    if _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


class Halves:
    """First halves at the ends of pieces of text, kept back until what follows in the same place."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, str] = {}

    def pass_on(self, place: Hashable, text: str) -> str:
        """What of a piece can be handed on now, behind what was kept back before it."""
        text = joined(self._kept.pop(place, "") + text)
        if _FIRST_HALF.search(text) is not None:
            self._kept[place] = text[-1]
            text = text[:-1]
        return text

    def rest(self) -> dict[Hashable, str]:
        """The halves whose other half never came, by place."""
        kept, self._kept = self._kept, {}
        return kept


def joined_in(value: Any) -> Any:
    """A value of JSON, with each of its texts `joined`."""
    if isinstance(value, str):
        return joined(value)
    if isinstance(value, Mapping):
        return {name: joined_in(inner) for name, inner in value.items()}
    return [joined_in(inner) for inner in value] if isinstance(value, list) else value


def escaped(json_text: str) -> str:
    """JSON with its lone halves, which UTF-8 can't write, as `\\ud83d`: every reader of JSON gives them back."""
    return _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", json_text)


def without_halves(value: Any) -> Any:
    """A value of JSON with U+FFFD for each lone half, for who can't write them.

    Args:
        value: A text, or dicts and lists of texts; anything else is returned as it is.

    Returns:
        The value, made anew where it is a dict or a list; two halves that belong together become their character.
    """
    if isinstance(value, str):
        return value if _HALF.search(value) is None else _HALF.sub("\ufffd", joined(value))
    if isinstance(value, Mapping):
        return {without_halves(name): without_halves(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_halves(inner) for inner in value]
    return value

"""Texts in one spelling, before they are compared: composed (NFC), and without what nobody sees.

Models and people write the same word with different code points: `é` as one or as two, with a soft hyphen or a
zero-width joiner within, with marks of direction around.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex

_MARKS = 30  # in a row, as the Stream-Safe Text Format has it (UAX #15, section 13); no word of any language has more


def composed(text: str) -> str:
    """A text in NFC, without format and control characters, in time linear in its length.

    A run of combining marks is cut after 30: to put a run in its canonical order takes Python time with the square of
    its length, and minutes for one that fits an answer.
    """
    if text.isascii():
        return text if text.isprintable() else _unseen().sub("", text)
    return unicodedata.normalize("NFC", _long_runs().sub(r"\1", _unseen().sub("", text)))


@cache
def _unseen() -> regex.Pattern[str]:
    """What takes no room on a screen: Default_Ignorable_Code_Point (soft hyphen, joiners, direction, variation
    selectors, fillers, tags), interlinear annotation, and controls that are no white space."""
    import regex  # when a text is the first that needs it

    return regex.compile(r"[\p{Default_Ignorable_Code_Point}\uFFF9-\uFFFB\x00-\x08\x0E-\x1B\x7F-\x84\x86-\x9F]+")


@cache
def _long_runs() -> regex.Pattern[str]:
    import regex

    return regex.compile(rf"(\p{{M}}{{{_MARKS}}})\p{{M}}+")

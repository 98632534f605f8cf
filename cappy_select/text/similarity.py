"""How alike two texts are: Rouge-L F1 over words, for texts of any script.

A word is what stands between blanks and punctuation, with its combining marks: `हिन्दी` is one. Scripts written
without blanks (Han, kana, Thai, Lao, Khmer, Myanmar) give one word a character, as most measures of such texts do:
a whole sentence as one word would be all or nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache

from cappy_select.core.time_limit import check_time
from cappy_select.text.spelling import composed

COMPARED = 10_000
"""Words of a text that are compared: two texts of 400,000 would take minutes, in which nothing else runs."""

_WORD = re.compile(r"\w+")

_UNSPACED = (
    range(0x0E00, 0x0F00),  # Thai, Lao
    range(0x1000, 0x10A0),  # Myanmar
    range(0x1780, 0x1800),  # Khmer
    range(0x3005, 0x3008),  # 々, 〆, 〇
    range(0x3040, 0x3100),  # hiragana, katakana
    range(0x31F0, 0x3200),
    range(0x3400, 0x4DC0),  # Han
    range(0x4E00, 0xA000),
    range(0xA9E0, 0xAA00),  # Myanmar, extended
    range(0xAA60, 0xAA80),
    range(0xF900, 0xFB00),
    range(0xFF66, 0xFFA0),  # katakana, half width
    range(0x1B000, 0x1B170),  # kana, rare
    range(0x20000, 0x32000),  # Han, rare
)


def words(text: str) -> list[str]:
    """Lower-case words, composed (NFC), without characters that nobody sees; time grows with the length."""
    return (_WORD if text.isascii() else _any_script()).findall(composed(text.lower()))


def rouge_l(first: list[str], second: list[str]) -> float:
    """F1 of the longest common subsequence (Lin 2004), in [0, 1]; 0 when a text has no words.

    Two texts' own words, without a stemmer, the first 10,000 of each: not for comparison with published figures.
    Raises OutOfTime.
    """
    from rapidfuzz.distance import LCSseq  # 30 ms that `cappy rank` need not wait for

    check_time()
    first, second = first[:COMPARED], second[:COMPARED]
    if not first or not second:
        return 0.0
    return 2 * LCSseq.similarity(first, second) / (len(first) + len(second))


@cache  # 50 ms that English need not wait for
def _any_script() -> re.Pattern[str]:
    r"""`\w` alone knows neither combining marks nor where words of unspaced scripts end."""
    marks = _class(range(0x300, 0x20000), lambda character: unicodedata.category(character) in ("Mn", "Mc"))
    alone = "".join(_class(block, str.isalpha) for block in _UNSPACED)
    return re.compile(rf"[{alone}][{marks}]*|[^\W{alone}](?:[^\W{alone}]|[{marks}])*")


def _class(block: Iterable[int], holds: Callable[[str], bool]) -> str:
    """The characters of a block for which `holds`, as ranges within a regular expression's brackets."""
    found: list[list[int]] = []
    for code in block:
        if not holds(chr(code)):
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in found)

"""How alike two texts are: Rouge-L F1 over words, for texts of any script."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Lower-case words."""
    return _WORD.findall(text.lower())


def rouge_l(first: list[str], second: list[str]) -> float:
    """F1 of the longest common subsequence (Lin 2004), in [0, 1]; 0 when a text has no words.

    Two texts' own words, without a stemmer: not for comparison with published figures.
    """
    from rapidfuzz.distance import LCSseq  # 30 ms that `cappy rank` need not wait for

    if not first or not second:
        return 0.0
    return 2 * LCSseq.similarity(first, second) / (len(first) + len(second))

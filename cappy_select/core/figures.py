"""Figures that come from outside: what a server, a provider or a file says of tokens and dollars is such, or unknown.

A figure that can't be one must not lower what was spent, nor make a sum NaN: either would end a money limit.
"""

from __future__ import annotations

import sys
from numbers import Real
from typing import Any

MOST_TOKENS = 10**9  # of one call; no model reads or writes as many
MOST_DOLLARS = 1e6
ANY = sys.float_info.max  # as the most: any that is finite


def tokens_of(value: Any) -> int | None:
    """A count of tokens; None for what is none: negative, NaN, a part of a token, a bool, text, absurdly large.

    Args:
        value: What a server, a provider or a file says.

    Returns:
        The count in [0, 10**9], or None.
    """
    if not _is_number(value) or not 0 <= value <= MOST_TOKENS or value != int(value):
        return None
    return int(value)


def dollars_of(value: Any, most: float = MOST_DOLLARS) -> float | None:
    """Dollars; None for what is none: negative, NaN, infinite, a bool, text, absurdly much.

    Args:
        value: What a server, a provider or a file says.
        most: The largest amount that is believed, in dollars.

    Returns:
        The amount in [0, `most`], or None.
    """
    if not _is_number(value) or not 0 <= value <= most:
        return None
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)

"""JSON of models, clients and files, read so that a text that can't be read is a ValueError, whatever is wrong."""

from __future__ import annotations

import json
import math
from typing import Any

_TOO_DEEP = "it is nested too deeply to be read"


def loads(text: str | bytes) -> Any:
    """`json.loads`. Raises ValueError: no JSON, no Unicode, nested too deeply, an integer without end."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def strict_loads(text: str) -> Any:
    """`loads` of what is JSON by RFC 8259: no NaN or Infinity; and of no number that is larger than can be read."""
    try:
        return _STRICT.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ValueError(f"a number of {len(digits):,} digits is too large to be read") from None


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:40]} is too large to be read as a number")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


_STRICT = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_refuse_constant)

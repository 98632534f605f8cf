"""JSON of models, clients and files, read so that a text that can't be read is a ValueError, whatever is wrong."""

from __future__ import annotations

import json
import math
from typing import Any

_DEEPEST = 200  # pydantic writes 255
_TOO_DEEP = "it is nested too deeply to be read"


def loads(text: str | bytes) -> Any:
    """`json.loads`. Raises ValueError: no JSON, no Unicode, an integer without end, nested more than 200 deep (what is
    deeper can be read, but not written again by all that will have it)."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    brackets = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if brackets > _DEEPEST and not _is_flat(value):
        raise ValueError(_TOO_DEEP)
    return value


def _is_flat(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        parts = (part.values() if isinstance(part, dict) else part for part in level)
        level = [inner for part in parts for inner in part if isinstance(inner, dict | list)]
        if not level:
            return True
    return False


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

"""JSON of models, clients and files, read so that a text that can't be read is a ValueError, whatever is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

DEEPEST = 200  # pydantic writes 255
_TOO_DEEP = "it is nested too deeply to be read"


def loads(text: str | bytes) -> Any:
    """`json.loads`. Raises ValueError: no JSON, no Unicode, an integer without end, nested more than 200 deep (what is
    deeper can be read, but not written again by all that will have it)."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    brackets = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if brackets > DEEPEST and is_too_deep(value):
        raise ValueError(_TOO_DEEP)
    return value


def is_too_deep(value: Any, levels: int = DEEPEST) -> bool:
    """Whether dicts, lists and tuples stand more than so many deep within one another."""
    layer = {id(value): value} if isinstance(value, Mapping | list | tuple) else {}
    for _ in range(levels):
        parts = (part.values() if isinstance(part, Mapping) else part for part in layer.values())
        # Each once: a few lists can hold one another any number of times.
        layer = {id(one): one for part in parts for one in part if isinstance(one, Mapping | list | tuple)}
        if not layer:
            return False
    return True


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

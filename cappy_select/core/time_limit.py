"""How long a thread may work on what others sent, known to the work itself: a thread can't be ended from outside.

Who starts the work says how long (`time_limit`); what can take long, a pattern or a schema, asks as it goes along
(`check_time`, `time_left`) and gives up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_until: ContextVar[float] = ContextVar("until", default=float("inf"))


class OutOfTime(TimeoutError):
    """Work that was given up because its time was up."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let the work in this block, in this thread, take so long, or less where less was left."""
    before = _until.set(min(_until.get(), time.perf_counter() + seconds))
    try:
        yield
    finally:
        _until.reset(before)


def time_left(at_most: float) -> float:
    """Seconds that are left, of `at_most`. Raises OutOfTime when there are none."""
    left = _until.get() - time.perf_counter()
    if left <= 0:
        raise OutOfTime("its time was up")
    return min(left, at_most)


def check_time() -> None:
    """Raises OutOfTime when no time is left."""
    if _until.get() <= time.perf_counter():
        raise OutOfTime("its time was up")

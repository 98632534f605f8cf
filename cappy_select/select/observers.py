"""Who is told of every finished selection: a ledger, metrics, a log. An observer can neither slow nor break one."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from cappy_select.core.fork import starts_anew_in_child
from cappy_select.core.types import Prompt, Selection

MAX_WAITING = 1000
"""Finished selections that wait for a slow observer; of more, the oldest are dropped."""

_AT_EXIT_S = 2.0  # for observers to be told of what is finished

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """One selection that ended, well or badly.

    Attributes:
        prompt: As the caller gave it.
        params: The caller's call parameters.
        latency_s: Seconds from the call to its end.
        selection: What was chosen; also of a `NoGoodAnswer` or a `StrategyError`. None when nothing could be.
        error: Why the caller got an error; None when they got the selection. A cancelled selection has
            `asyncio.CancelledError` here.
    """

    prompt: Prompt
    params: Mapping[str, Any]
    latency_s: float
    selection: Selection | None = None
    error: BaseException | None = None


Observer = Callable[[Finished], object]
"""Called with each finished selection, one after another, in a thread of its own. What it raises is logged."""


class Told:
    """One observer, its thread, and what it is yet to be told."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._dropped = 0
        self.start_anew()
        starts_anew_in_child(self)
        _all.add(self)

    def start_anew(self) -> None:
        """Also in a forked child, which has not got the thread: what waits there is the parent's to tell."""
        self._changed = threading.Condition()
        self._waiting: deque[Finished] = deque()
        self._busy = False

    def tell(self, finished: Finished) -> None:
        """Have the observer told; returns at once."""
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.popleft()
                self._dropped += 1
                if self._dropped.bit_count() == 1:  # the first, second, fourth, eighth, ...
                    _logger.warning("observer %s is too slow: %d selections dropped", self._name, self._dropped)
            self._waiting.append(finished)
            if not self._busy:
                thread = threading.Thread(target=self._serve, name="cappy-observer", daemon=True)
                try:
                    thread.start()
                    self._busy = True
                except RuntimeError as error:  # no more threads, or the interpreter is exiting
                    _logger.warning("observer %s can't be told: %s", self._name, error)

    def flush(self, seconds: float) -> bool:
        """Wait until it was told of all that is finished, at most so long; says whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, seconds)

    def _serve(self) -> None:
        """Until nothing waits: the next one makes another thread."""
        while True:
            with self._changed:
                if not self._waiting:
                    self._busy = False
                    self._changed.notify_all()
                    return
                finished = self._waiting.popleft()
            try:
                self._observer(finished)
            except BaseException as error:
                # Without its message, which may hold a prompt.
                _logger.warning("observer %s failed: %s", self._name, type(error).__name__)

    @property
    def _name(self) -> str:
        return getattr(self._observer, "__qualname__", type(self._observer).__qualname__)


_all: WeakSet[Told] = WeakSet()


def _tell_the_rest() -> None:
    until = time.monotonic() + _AT_EXIT_S
    for told in list(_all):
        told.flush(max(0.0, until - time.monotonic()))


atexit.register(_tell_the_rest)

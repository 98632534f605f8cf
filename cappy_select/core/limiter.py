"""A bound on what is under way at a time, first come first served."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future


class Limiter:
    """So many places, for threads and for tasks of any event loop. Its tickets are futures: wait, or cancel."""

    def __init__(self, places: int) -> None:
        self._free = self._size = places
        self._queue: deque[tuple[int, Future[None]]] = deque()
        self._lock = threading.RLock()  # a coroutine that is dropped may leave while this thread is in here

    def enter(self, places: int = 1) -> Future[None]:
        """A ticket that is done when so many places (or, if they are more, the whole room) are free."""
        ticket: Future[None] = Future()
        with self._lock:
            self._queue.append((min(places, self._size), ticket))
            self._admit()
        return ticket

    def leave(self, ticket: Future[None], places: int = 1) -> None:
        """Give back what was entered for, or give up waiting."""
        with self._lock:
            if not ticket.cancel():  # it had been let in
                self._free += min(places, self._size)
            self._admit()

    def _admit(self) -> None:
        while self._queue and (self._queue[0][1].cancelled() or self._queue[0][0] <= self._free):
            places, ticket = self._queue.popleft()
            if ticket.set_running_or_notify_cancel():
                self._free -= places
                ticket.set_result(None)

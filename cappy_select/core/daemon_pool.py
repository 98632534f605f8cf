"""Threads that nobody waits for: a task that never ends takes its own thread with it, and nothing else.

`ThreadPoolExecutor` queues tasks behind its workers and joins them all when the interpreter exits: a few tasks that
hang stop every later one, and the exit. Here a few tasks run at a time, so that a burst of work does not become a
burst of threads; but a task that has run for a while is taken for one that may not end, and no other waits for it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from cappy_select.core.fork import starts_anew_in_child

_T = TypeVar("_T")
_Task = tuple[Future[Any], Callable[[], Any]]

PATIENCE_S = 0.5
"""How long others wait for a task."""


class PoolFull(RuntimeError):
    """All threads are busy, and there may be no more."""


class DaemonPool:
    """Daemon threads that run tasks."""

    def __init__(self, name: str, max_threads: int, *, at_a_time: int = 16, patience_s: float = PATIENCE_S) -> None:
        """Set up a pool; threads are made as they are needed.

        Args:
            name: What its threads are called.
            max_threads: Tasks that may run at a time, those that never end included.
            at_a_time: Tasks that run at a time where all of them are quick.
            patience_s: What takes longer is no more taken for quick; `math.inf` for tasks that are known to end.
        """
        self._name, self._max_threads = name, max_threads
        self._at_a_time, self._patience_s = at_a_time, patience_s
        self.start_anew()
        starts_anew_in_child(self)

    def start_anew(self) -> None:
        """Also in a forked child, which has none of the threads: what they ran, or would have, is the parent's."""
        self._lock = threading.Lock()
        self._threads = 0
        self._running: dict[int, float] = {}  # when each began
        self._waiting: deque[_Task] = deque()
        self._handed: SimpleQueue[_Task] = SimpleQueue()  # to threads that are free, or being made
        self._watched = False

    def submit(self, task: Callable[[], _T]) -> Future[_T]:
        """Run a task in a thread. Its result or exception is the future's.

        Raises PoolFull when `max_threads` tasks are running.
        """
        future: Future[_T] = Future()
        with self._lock:
            if len(self._running) >= self._max_threads:
                raise PoolFull(f"all {self._max_threads} threads of {self._name} are busy with work that has not ended")
            self._waiting.append((future, task))
            self._begin()
        return future

    def _begin(self) -> None:
        """Begin what may run. Holds the lock."""
        while self._waiting and len(self._running) < self._max_threads:
            now = time.monotonic()
            quick = [began for began in self._running.values() if now - began < self._patience_s]
            if len(quick) >= self._at_a_time:
                if self._patience_s < math.inf:
                    self._look_again_in(min(quick) + self._patience_s - now)
                return
            if self._threads == len(self._running):
                threading.Thread(target=self._serve, name=f"{self._name}_{self._threads}", daemon=True).start()
                self._threads += 1
            future, task = self._waiting.popleft()
            self._running[id(future)] = now
            self._handed.put((future, task))

    def _look_again_in(self, seconds: float) -> None:
        """Unless a task ends before, and lets the next one begin."""
        if not self._watched:
            timer = threading.Timer(seconds, self._look_again)
            timer.daemon, timer.name = True, f"{self._name}_watch"
            timer.start()
            self._watched = True

    def _look_again(self) -> None:
        with self._lock:
            self._watched = False
            self._begin()

    def _serve(self) -> None:
        while True:
            self._run(*self._handed.get())

    def _run(self, future: Future[Any], task: Callable[[], Any]) -> None:
        """One task. Its thread is free before the future is done, so that who waited for it can use it again."""
        result, error = None, None
        if wanted := future.set_running_or_notify_cancel():
            try:
                result = task()
            except BaseException as raised:
                error = raised
        with self._lock:
            del self._running[id(future)]
            self._begin()
        if wanted and error is None:
            future.set_result(result)
        elif wanted:
            future.set_exception(error)

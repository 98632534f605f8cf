"""Threads that nobody waits for: a task that never ends takes its own thread with it, and nothing else.

`ThreadPoolExecutor` queues tasks behind its workers and joins them all when the interpreter exits: a few tasks that
hang stop every later one, and the exit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")


class PoolFull(RuntimeError):
    """All threads are busy, and there may be no more."""


class DaemonPool:
    """Daemon threads that run tasks at once: an idle one, else a new one."""

    def __init__(self, name: str, max_threads: int, *, queues: bool = False) -> None:
        """Set up a pool; threads are made as they are needed.

        Args:
            name: What its threads are called.
            max_threads: Tasks that may run at a time, those that never end included.
            queues: Further tasks wait for a thread; for tasks that are known to end.
        """
        self._name = name
        self._max_threads, self._queues = max_threads, queues
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0  # threads that wait for a task, or are about to; less those that queue
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()

    def submit(self, task: Callable[[], _T]) -> Future[_T]:
        """Run a task in a thread. Its result or exception is the future's.

        Raises PoolFull when `max_threads` tasks are running, and the pool does not queue.
        """
        with self._lock:
            if self._free > 0:
                self._free -= 1
            elif self._threads < self._max_threads:
                threading.Thread(target=self._serve, name=f"{self._name}-{self._threads}", daemon=True).start()
                self._threads += 1
            elif self._queues:
                self._free -= 1
            else:
                raise PoolFull(f"all {self._max_threads} threads of {self._name} are busy with work that has not ended")
        future: Future[_T] = Future()
        self._tasks.put((future, task))
        return future

    def _serve(self) -> None:
        while True:
            self._run(*self._tasks.get())

    def _run(self, future: Future[Any], task: Callable[[], Any]) -> None:
        """One task. The thread counts as free before the future is done, so that who waits for it can use it again."""
        result, error = None, None
        if wanted := future.set_running_or_notify_cancel():
            try:
                result = task()
            except BaseException as raised:
                error = raised
        with self._lock:
            self._free += 1
        if wanted and error is None:
            future.set_result(result)
        elif wanted:
            future.set_exception(error)

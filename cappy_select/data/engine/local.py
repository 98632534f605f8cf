"""On this machine: each stage of each partition is a folder that appears whole, so a killed run goes on.

A stage is a pure function of its partition: which process does it, and when, changes nothing. Its rows are Arrow
streams, its figures a JSON file.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cappy_select.core.errors import DataError
from cappy_select.core.files import disk_errors, whole_folder
from cappy_select.core.terminal import HarmlessStream

Figures = dict[str, Any]
Stage = Callable[[Any, int, Path], Figures]
"""(what all partitions share, the partition's number, the folder to fill) -> its figures"""

FIGURES = "figures.json"


class Workers:
    """A pool of processes, or this one when one is enough. None outlives its parent, however that ends."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None
        if count > 1:
            # Spawned: a fork would copy the threads' locks, and the memory, of whoever calls.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
            if kind is not None:
                for process in processes:
                    process.terminate()
                for process in processes:
                    process.join(5)

    def run(
        self, stage: Stage, shared: Any, count: int, folder: Path, on_done: Callable[[], None] = lambda: None
    ) -> list[Figures]:
        """Do the stage for the partitions 0 to `count` that are not done yet; the figures of all, in order.

        Raises DataError when a worker dies or the disk is full; what is done stays done.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            if (folder / str(number)).is_dir():
                on_done()
        waiting = iter([number for number in range(count) if not (folder / str(number)).is_dir()])
        if self._pool is None:
            for number in waiting:
                _whole(stage, shared, number, folder)
                on_done()
        else:
            self._spread(stage, shared, waiting, folder, on_done)
        return [json.loads((folder / str(number) / FIGURES).read_text(encoding="utf-8")) for number in range(count)]

    def _spread(
        self, stage: Stage, shared: Any, waiting: Iterator[int], folder: Path, on_done: Callable[[], None]
    ) -> None:
        assert self._pool is not None  # noqa: S101
        running: set[Future[None]] = set()
        try:
            while True:
                for number in waiting:
                    with _uninterrupted():
                        running.add(self._pool.submit(_whole, stage, shared, number, folder))
                    if len(running) > self._count:  # one more than there are workers, so that none waits
                        break
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    on_done()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process died (killed, or out of memory); what was done is kept: run it again, with fewer "
                "workers if memory was short"
            ) from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back: a worker that is begun meanwhile is begun wholly, and inherits that it does not heed it."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield  # no Ctrl-C is raised here, or nothing can be inherited
        return
    came: list[int] = []
    # Both: another thread may take what this one has blocked, and a new process forgets what handles a signal.
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the pool is the parallelism
    if sys.stderr is not None:
        sys.stderr = HarmlessStream(sys.stderr)  # warnings quote texts
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _whole(stage: Stage, shared: Any, number: int, folder: Path) -> None:
    """Do a stage in a scratch folder, which takes its place when it is whole."""
    with disk_errors(folder), whole_folder(folder / str(number)) as scratch:
        figures = stage(shared, number, scratch)
        (scratch / FIGURES).write_text(json.dumps(figures), encoding="utf-8")

"""Concurrent callers share batches.

Each caller hands in a share of its rows and waits. One worker thread, which lives while there is work, takes
the rows that go well together, whoever's they are. A lone caller waits for nothing; when several have just
been served, the worker gives them a moment to come back, so that they meet in one batch again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from cappy_select.core.fork import starts_anew_in_child
from cappy_select.core.limiter import Limiter
from cappy_select.scorer.encoding import Pair
from cappy_select.scorer.native import refuse_at_exit
from cappy_select.scorer.planning import next_batch

Scores = npt.NDArray[np.float32]
Run = Callable[[Sequence[Pair]], Scores]

MAX_PAIRS_UNDER_WAY = 16_384  # pairs that are encoded or waiting at a time; who comes then waits outside
_REUNION_S = 0.002


class _Job:
    """One caller's share."""

    def __init__(self, rows: Sequence[Pair], run: Run) -> None:
        self.future: Future[Scores] = Future()
        self.rows = rows
        self.run = run
        self.waiting = list(range(len(rows)))  # rows not yet taken, longest first
        self.tokens = sum(row.length for row in rows)  # of those
        self.missing = len(rows)  # scores
        self.scores = np.empty(len(rows), np.float32)


class Batcher:
    """Runs the rows of all callers, a batch at a time, in one worker thread."""

    def __init__(self, tokens_per_batch: int) -> None:
        self.tokens_per_batch = tokens_per_batch
        self.start_anew()
        starts_anew_in_child(self)

    def start_anew(self) -> None:
        """Also in a forked child, which has neither the worker nor the callers it served."""
        self.limiter = Limiter(MAX_PAIRS_UNDER_WAY)
        self._jobs: list[_Job] = []  # in order of arrival
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None

    def submit(self, rows: Sequence[Pair], run: Run) -> Future[Scores]:
        """Hand in rows, longest first, and what scores a batch: the same for all who share this batcher.

        The future holds float32[rows]; cancelling it takes back what can be.
        """
        refuse_at_exit()
        job = _Job(rows, run)
        with self._changed:
            if self._worker is None:
                # It ends by itself when there is no work; the process does not end inside its calls (see `native`).
                worker = threading.Thread(target=self._work, name="cappy-scorer", daemon=True)
                worker.start()  # it waits for this lock
                self._worker = worker
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def _work(self) -> None:
        callers = 0
        while True:
            with self._changed:
                if callers > 1:
                    self._reunite(callers)
                self._jobs = [job for job in self._jobs if not job.future.cancelled()]
                taken = self._take()
                if not taken:
                    self._worker = None
                    return
            self._score(taken)
            with self._changed:
                served = sum(not job.missing for job in self._jobs)
                callers = len(self._jobs) if served else 0  # those now free to come back, and those who wait
                self._jobs = [job for job in self._jobs if job.missing]

    def _reunite(self, callers: int) -> None:
        """Wait a moment, until so many callers are here again or a batch is full."""
        self._changed.wait_for(
            lambda: len(self._jobs) >= callers or sum(job.tokens for job in self._jobs) >= self.tokens_per_batch,
            timeout=_REUNION_S,
        )

    def _take(self) -> list[tuple[_Job, list[int]]]:
        """The next batch, taken off its jobs."""
        able = [job for job in self._jobs if job.waiting]
        if not able:
            return []
        lengths = [[job.rows[row].length for row in job.waiting] for job in able]
        taken: dict[int, list[int]] = {}
        for caller, place in next_batch(lengths, self.tokens_per_batch):
            taken.setdefault(caller, []).append(place)
        batch = []
        for caller, places in taken.items():
            job = able[caller]
            rows = [job.waiting[place] for place in places]
            batch.append((job, rows))
            gone = set(rows)
            job.waiting = [row for row in job.waiting if row not in gone]
            job.tokens -= sum(job.rows[row].length for row in rows)
        return batch

    def _score(self, batch: list[tuple[_Job, list[int]]]) -> None:
        try:
            scores = batch[0][0].run([job.rows[row] for job, rows in batch for row in rows])
        except BaseException as error:
            if len(batch) > 1:  # one caller's row must not fail the others
                for part in batch:
                    self._score([part])
                return
            ((job, _),) = batch
            job.missing, job.waiting, job.tokens = 0, [], 0
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)
            return
        start = 0
        for job, rows in batch:
            job.scores[rows] = scores[start : start + len(rows)]
            start += len(rows)
            job.missing -= len(rows)
            if not job.missing and job.future.set_running_or_notify_cancel():
                job.future.set_result(job.scores)

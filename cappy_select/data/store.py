"""The sample store: answers that were paid for, in one SQLite file that survives a kill at any moment.

One row a sample. Its key is the instance (task, id and instruction: a changed instruction is another instance),
the model, the sampling parameters and the sample's number among those of the same parameters.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from filelock import FileLock, Timeout

from cappy_select.ask.recorded import Recorded
from cappy_select.core.errors import DataError, InputError
from cappy_select.core.json_text import loads
from cappy_select.data.formats import is_rows
from cappy_select.data.instances import Instance
from cappy_select.data.store_file import holds_nothing, opened_to_read, opened_to_write
from cappy_select.data.store_rows import (
    INSERT,
    SELECT,
    Key,
    Stored,
    canonical,
    key_of,
    row_of,
    shortened,
    storable,
    stored_of,
)


class Failed(NamedTuple):
    """A sample that did not come, by the last attempt."""

    task: str
    id: str
    key: Key
    kind: str
    message: str


class SampleStore:
    """Samples on disk. Safe to share between threads; one process writes at a time.

    Args:
        path: The file.
        write: Take the store's lock. False: read only, beside a writer if there is one.
        make: Make the file when it is not there, to write to it.

    Raises InputError when the file is no sample store, is another version's, or is being written to.
    """

    def __init__(self, path: str | Path, *, write: bool = False, make: bool = True) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._file_lock: FileLock | None = None
        there = self.path.exists()
        if not there and not (write and make):
            raise InputError(f"there is no sample store {path}")
        if is_rows(self.path):
            raise InputError(f"{path} has the name of a file of rows and is not a sample store: call that samples.db")
        if not (write and make and holds_nothing(self.path)):
            self._db = opened_to_read(self.path)  # what is no store is neither locked nor changed
        if write:
            self._open_to_write()

    def _open_to_write(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file_lock = FileLock(f"{self.path}.lock")
            self._file_lock.acquire(timeout=0)
            if hasattr(self, "_db"):
                self._db.close()
            self._db = opened_to_write(self.path)
        except Timeout as error:
            self.close()
            raise InputError(f"{self.path} is being written to by another process") from error
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise InputError(f"{self.path} can't be written: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the file, and its lock, back."""
        with self._lock:
            if hasattr(self, "_db"):
                self._db.close()
        if self._file_lock is not None:
            self._file_lock.release()

    # -- writing -----------------------------------------------------------------------------------------------

    def add(self, instance: Instance, samples: Iterable[tuple[Key, Recorded]]) -> int:
        """Keep samples, all or none; one that is there already stays as it is. Returns how many are new."""
        new = 0
        with self._transaction() as db:
            number = self._number(instance)
            for key, sample in samples:
                key = key._replace(model=storable(key.model))
                new += db.execute(INSERT, row_of(number, key, sample, recorded=False)).rowcount
                db.execute("DELETE FROM failures WHERE instance=? AND model=? AND params=? AND place=?", (number, *key))
        return new

    def add_recorded(self, rows: Iterable[tuple[Instance, Iterable[tuple[Recorded, int]]]]) -> int:
        """Keep samples that were not asked for here, all or none; returns how many are new.

        With each comes how often the same response of the same model stood before it: what is there already so often
        is not added again, but what is newly known of it is.
        """
        new = 0
        with self._transaction() as db:
            for instance, samples in rows:
                number = self._number(instance)
                for sample, before in samples:
                    response = storable(sample.response)
                    named = number, storable(sample.model), canonical(sample.sampling)
                    there = db.execute(_COUNT, (*named, response)).fetchone()[0]
                    if there > before:
                        db.execute(_LEARN, (sample.correct, sample.human, *named, response))
                    else:
                        (place,) = db.execute(_NEXT, named).fetchone()
                        db.execute(INSERT, row_of(number, Key(*named[1:], place), sample, recorded=True))
                        new += 1
        return new

    def add_failures(self, instance: Instance, keys: Iterable[Key], kind: str, message: str) -> None:
        """Keep why samples did not come, instead of what was known before."""
        with self._transaction() as db:
            number = self._number(instance)
            db.executemany(
                "INSERT OR REPLACE INTO failures VALUES (?,?,?,?,?,?)",
                [(number, *key, kind, shortened(message)) for key in keys],
            )

    def add_judgement(self, sample: int, judge: str, score: float, cost: float | None) -> None:
        """Keep a judge's score of a sample, in [0, 1], and what it cost."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO judgements VALUES (?,?,?)", (sample, judge, score))
            db.execute("INSERT INTO bills VALUES (NULL,?,?,?)", ("judge", judge, cost))

    def add_bill(self, what: str, model: str, cost: float | None) -> None:
        """Keep what was paid beside the samples: failed attempts, judges. None: unknown."""
        if cost != 0:
            with self._transaction() as db:
                db.execute("INSERT INTO bills VALUES (NULL,?,?,?)", (what, storable(model), cost))

    def promise(self, model: str, dollars: float | None) -> int | None:
        """Note what a call may cost, before it is made: if nobody sees its end, that stands. Returns the note's number,
        None when it costs nothing."""
        if dollars == 0:
            return None
        with self._transaction() as db:
            values = "call without an end", storable(model), dollars
            return db.execute("INSERT INTO bills VALUES (NULL,?,?,?)", values).lastrowid

    def settle(self, number: int | None, cost: float | None) -> None:
        """Put what a call cost, beside the samples that it brought, in place of what was promised. None: unknown."""
        if number is None:
            return
        with self._transaction() as db:
            if cost == 0:
                db.execute("DELETE FROM bills WHERE number=?", (number,))
            else:
                db.execute("UPDATE bills SET what='failed calls', cost=? WHERE number=?", (cost, number))

    def at_once(self) -> AbstractContextManager[object]:
        """What is written within is written all or not at all."""
        return self._transaction()

    # -- reading -----------------------------------------------------------------------------------------------

    def keys(self, instance: Instance) -> set[Key]:
        """The samples of an instance that are there."""
        return {Key(*row) for row in self._of(instance, "SELECT model, params, place FROM samples WHERE instance=?")}

    def failed(self, instance: Instance, kinds: Collection[str]) -> set[Key]:
        """The samples of an instance that failed in one of these ways."""
        rows = self._of(instance, "SELECT model, params, place, kind FROM failures WHERE instance=?")
        return {Key(*row[:3]) for row in rows if row[3] in kinds}

    def samples(self, instance: Instance) -> list[Stored]:
        """The samples of an instance, by model, parameters and place."""
        return [stored_of(row) for row in self._of(instance, SELECT)]

    def judgements(self, instance: Instance, judge: str) -> dict[str, float]:
        """A judge's score of each response to an instance; the mean, where a response was judged several times."""
        return dict(
            self._of(
                instance,
                "SELECT response, avg(score) FROM judgements JOIN samples ON sample=number WHERE instance=? AND judge=?"
                " GROUP BY response",
                judge,
            )
        )

    def failures(self) -> Iterator[Failed]:
        """All samples that did not come."""
        for task, name, *key, kind, message in self._rows(
            "SELECT task, id, model, params, place, kind, message FROM failures JOIN instances ON instance=number"
            " ORDER BY instance, model, params, place"
        ):
            yield Failed(task, name, Key(*key), kind, message)

    def instances(self) -> Iterator[tuple[Instance, list[Stored]]]:
        """All instances that have samples, with them, in the order in which they came."""
        last = 0
        while rows := self._rows(
            "SELECT number, task, id, instruction, refs FROM instances WHERE number > ? ORDER BY number LIMIT 1000",
            (last,),
        ):
            for last, task, name, instruction, refs in rows:
                samples = self._rows(SELECT, (last,))
                if samples:
                    instance = Instance(id=name, task=task, instruction=instruction, references=loads(refs))
                    yield instance, [stored_of(row) for row in samples]

    def counts(self) -> dict[str, int]:
        """Samples by model."""
        return dict(self._rows("SELECT model, count(*) FROM samples GROUP BY model ORDER BY model"))

    def asked(self) -> int:
        """Samples that were asked for here, recorded ones left out."""
        ((count,),) = self._rows("SELECT count(*) FROM samples WHERE NOT recorded")
        return int(count)

    def spent(self) -> float | None:
        """Dollars for all that was asked for here, recorded samples left out; None when a price is unknown."""
        ((cost, unknown),) = self._rows(
            "SELECT total(cost), count(*) - count(cost) FROM"
            " (SELECT cost FROM samples WHERE NOT recorded UNION ALL SELECT cost FROM bills)"
        )
        return None if unknown else float(cost)

    def spent_towards(self, max_cost: float | None) -> float:
        """Dollars that count towards a limit. Raises InputError when they are not known and there is a limit."""
        spent = self.spent()
        if spent is None and max_cost is not None:
            raise InputError(f"max_cost can't be kept: {self.path} has calls of an unknown price; use a new store")
        return spent or 0.0

    def digest(self) -> str:
        """SHA-256 of the samples and judgements, whatever the order in which they came."""
        digest = hashlib.sha256()
        joined = "FROM samples AS s JOIN instances AS i ON s.instance=i.number"
        order = "ORDER BY i.key, s.model, s.params, s.place"
        with self._lock:
            for query in (
                f"SELECT i.key, s.model, s.params, s.place, s.response, s.correct, s.human {joined} {order}",
                f"SELECT i.key, s.model, s.params, s.place, j.judge, j.score {joined} "
                f"JOIN judgements AS j ON j.sample=s.number {order}, j.judge",
            ):
                for row in self._db.execute(query):
                    digest.update(repr(row).encode())
        return digest.hexdigest()

    # ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._db.in_transaction:  # a part of a greater one
                yield self._db
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise DataError(f"{self.path} can't be written: {error}; what was stored before is safe") from error

    def _number(self, instance: Instance) -> int:
        key = key_of(instance)
        row = self._db.execute("SELECT number FROM instances WHERE key=?", (key,)).fetchone()
        if row:
            return int(row[0])
        refs = json.dumps(instance.references)
        values = key, storable(instance.task), storable(instance.id), storable(instance.instruction), refs
        return int(self._db.execute("INSERT INTO instances VALUES (NULL,?,?,?,?,?)", values).lastrowid or 0)

    def _of(self, instance: Instance, query: str, *more: Any) -> list[tuple[Any, ...]]:
        by_key = query.replace("instance=?", "instance=(SELECT number FROM instances WHERE key=?)")
        return self._rows(by_key, (key_of(instance), *more))

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise InputError(f"{self.path} can't be read: {error}") from error


# The queries are made of constants.
_COUNT = "SELECT count(*) FROM samples WHERE instance=? AND model=? AND params=? AND response=?"
_LEARN = (
    "UPDATE samples SET correct=coalesce(correct, ?), human=coalesce(human, ?)"
    " WHERE instance=? AND model=? AND params=? AND response=?"
)
_NEXT = "SELECT coalesce(max(place), -1) + 1 FROM samples WHERE instance=? AND model=? AND params=?"

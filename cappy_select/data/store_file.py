"""A sample store's file: made whole, opened, or refused as it is."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from cappy_select.core.errors import InputError
from cappy_select.data.store_rows import COLUMNS

_FORMAT = 1
_TABLES = f"""
CREATE TABLE IF NOT EXISTS instances (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, task TEXT NOT NULL, id TEXT NOT NULL,
    instruction TEXT NOT NULL, refs TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS samples (
    {", ".join(f"{name} {declared}" for name, declared in COLUMNS.items())},
    UNIQUE (instance, model, params, place)
);
CREATE TABLE IF NOT EXISTS failures (
    instance INTEGER NOT NULL REFERENCES instances, model TEXT NOT NULL, params TEXT NOT NULL, place INTEGER NOT NULL,
    kind TEXT NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (instance, model, params, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS judgements (
    sample INTEGER NOT NULL REFERENCES samples, judge TEXT NOT NULL, score REAL NOT NULL,
    PRIMARY KEY (sample, judge)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bills (number INTEGER PRIMARY KEY, what TEXT NOT NULL, model TEXT NOT NULL, cost REAL);
"""

_HEADER = b"SQLite format 3\0"


def holds_nothing(path: Path) -> bool:
    """Whether there is no file, an empty one, or a database without anything in it: one that was killed while an
    earlier version made it."""
    if not path.exists():
        return True
    if not path.is_file():
        return False
    if not path.stat().st_size:
        return True
    try:
        with path.open("rb") as file:
            if file.read(len(_HEADER)) != _HEADER:  # SQLite takes a file of one byte for an empty one
                return False
        with closing(_connected(path)) as db:
            return not _version(db) and not _names(db)
    except (OSError, sqlite3.Error):
        return False


def opened_to_read(path: Path) -> sqlite3.Connection:
    """The store's connection. Raises InputError when the file is no store, or another version's."""
    try:
        db = _connected(path)
        version, names = _version(db), _names(db)
    except sqlite3.OperationalError as error:
        raise InputError(f"{path} can't be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is not a sample store: {error}; name another file, or move this one away") from error
    if version == _FORMAT and "samples" in names:
        return db
    db.close()
    if version > _FORMAT and "samples" in names:
        raise InputError(f"{path} is not a sample store of format {_FORMAT} but of {version}: a newer version reads it")
    raise InputError(f"{path} is not a sample store of format {_FORMAT} (it says {version}): name another file")


def opened_to_write(path: Path) -> sqlite3.Connection:
    """The store's connection, for whoever has its lock; made when there is nothing yet. Raises sqlite3.Error, OSError,
    and InputError for a file that has become no store."""
    if not path.exists() or not path.stat().st_size:
        _make(path)
    elif not holds_nothing(path):
        opened_to_read(path).close()  # it may have been made since somebody looked
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        _prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def _make(path: Path) -> None:
    """A whole store, in place of no file or an empty one: who is killed meanwhile leaves what was there, or a store."""
    new = Path(f"{path}.new")
    beside = [Path(f"{each}{end}") for each in (new, path) for end in ("-journal", "-wal", "-shm")]
    for left in (new, *beside):  # of one that was killed; SQLite too drops what lies beside an empty file
        left.unlink(missing_ok=True)
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        _prepare(db)
    new.replace(path)


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")  # answers are paid for: they outlive a power cut
    db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version={_FORMAT}; COMMIT;")


def _connected(path: Path) -> sqlite3.Connection:
    """To read, and to change nothing."""
    # Reading a log that is not there needs to write beside the file, unless nobody can be writing.
    lone = not Path(f"{path}-wal").exists() and not os.access(path.parent, os.W_OK)
    address = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if lone else ''}"
    return sqlite3.connect(address, uri=True, check_same_thread=False)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _names(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master")}

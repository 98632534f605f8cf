"""Files and folders that are whole or not there, and lines of JSON with the place where each stands."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from cappy_select.core.errors import DataError, InputError
from cappy_select.core.json_text import loads


def scratch_of(path: Path) -> Path:
    """Where a file or folder is written before it takes its place."""
    return path.with_name(f"{path.name}.partial")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, or replace it: a kill or a power cut leaves the old one or the new one. Raises OSError."""
    scratch = scratch_of(path)
    with scratch.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def write_json(path: Path, value: Any) -> None:
    """`write_whole` of indented JSON. Raises OSError."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty scratch folder, which takes the place of `path`, whatever is there, at the end. Raises OSError.

    After an error the scratch folder is left: the next one who begins clears it away.
    """
    scratch = scratch_of(path)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    yield scratch
    shutil.rmtree(path, ignore_errors=True)
    scratch.replace(path)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """What the disk refuses, as a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder} can't be written: {error}; what was done before is kept") from error


def read_lines(path: str | Path) -> Iterator[bytes]:
    """The lines of a file, plain or `.gz`. Raises InputError."""
    try:
        with open(path, "rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else open(path, "rb") as lines:
            yield from lines
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    except (OSError, EOFError, zlib.error) as error:  # gzip raises any of them
        raise InputError(f"{path} can't be read: {error}") from error


def json_lines(
    lines: Iterable[bytes], name: str, on_error: Callable[[str, str], None] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object of each line that is not blank, with its place, `name:number`.

    Args:
        lines: As they stand in a file.
        name: The file's.
        on_error: Told of a line that holds no object: where, and what is wrong. None: InputError is raised.
    """
    told = on_error or _refuse
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            row = loads(line.decode("utf-8-sig"))
        except ValueError as error:  # UnicodeDecodeError is a ValueError
            told(where, f"not JSON: {error}")
            continue
        if isinstance(row, dict):
            yield where, row
        else:
            told(where, f"expected an object, got {type(row).__name__}")


def _refuse(where: str, message: str) -> NoReturn:
    raise InputError(f"{where} is {message}" if message.startswith("not ") else f"{where}: {message}")

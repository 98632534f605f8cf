"""Rows of files of any usual kind, each with the place it came from; what can't be read is reported, not swallowed."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from cappy_select.core.errors import InputError, MissingExtra
from cappy_select.core.files import json_lines, read_lines
from cappy_select.core.json_text import loads

Record = dict[str, Any]
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")  # the first two and the next two also with .gz
_LONGEST_CELL = min(sys.maxsize, 2**31 - 1)  # characters; the standard library stops at 131,072
_LISTED = 1000  # places; beyond that they are counted


class Problems:
    """What was left out, and why: counted and listed, or, when strict, the first one is an InputError.

    `count` is how many there are, `listed` has (place, what is wrong) of the first 1,000.

    Args:
        strict: Raise the first problem that is reported.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self.count = 0
        self.listed: list[tuple[str, str]] = []  # (place, what is wrong)

    def report(self, where: str, message: str) -> None:
        """Leave out what stands at `where`.

        Args:
            where: The place, as `file:line`.
            message: What is wrong with it.

        Raises:
            InputError: problems are strict.
        """
        if self._strict:
            raise InputError(f"{where}: {message}")
        self.add([(where, message)], 1)

    def add(self, listed: list[tuple[str, str]], count: int) -> None:
        """Take over what was found elsewhere; also when strict.

        Args:
            listed: (place, what is wrong) of some of them.
            count: How many there are.
        """
        self.count += count
        self.listed += listed[: max(0, _LISTED - len(self.listed))]


def is_rows(path: str | Path) -> bool:
    """Whether a file has the name of a file of rows; a sample store has another."""
    return Path(path).name.lower().removesuffix(".gz").endswith(SUFFIXES)


def read_records(path: str | Path, problems: Problems) -> Iterator[tuple[str, Record]]:
    """(`file:line`, row) of a JSONL, JSON (a list of objects), CSV, TSV or Parquet file; the text ones may be gzipped.

    A line that can't be read, and a file without any row, go to `problems`. Raises InputError when the file
    itself can't be read, MissingExtra for Parquet without pyarrow.
    """
    name = Path(path).name.lower().removesuffix(".gz")
    readers: dict[str, Callable[[Path, Problems], Iterator[tuple[str, Record]]]] = {
        ".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet,
    }  # fmt: skip
    kind = next((suffix for suffix in readers if name.endswith(suffix)), None)
    if kind is None:
        raise InputError(f"{path}: what kind of file this is must show in its name: {', '.join(SUFFIXES)}")
    rows = 0
    found_before = problems.count
    for rows, row in enumerate(readers[kind](Path(path), problems), 1):  # noqa: B007
        yield row
    if not rows and problems.count == found_before:
        problems.report(str(path), "the file holds no row")


def _jsonl(path: Path, problems: Problems) -> Iterator[tuple[str, Record]]:
    return json_lines(read_lines(path), str(path), problems.report)


def _json(path: Path, problems: Problems) -> Iterator[tuple[str, Record]]:
    rows = read_json(path)
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        if isinstance(row, dict):
            yield f"{path}:{number}", row
        else:
            problems.report(f"{path}:{number}", f"expected an object, got {type(row).__name__}")


def read_json(path: str | Path) -> Any:
    """A whole JSON file, plain or gzipped. Raises InputError."""
    try:
        return loads(b"".join(read_lines(path)))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def _csv(path: Path, problems: Problems) -> Iterator[tuple[str, Record]]:
    # A byte that is no UTF-8 becomes a lone surrogate, which no instance may have: its row is left out, not the file.
    lines = (line.decode("utf-8", "surrogateescape") for line in read_lines(path))
    first = next(lines, "").removeprefix("\ufeff")
    delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
    csv.field_size_limit(_LONGEST_CELL)
    rows = csv.DictReader(chain([first], lines), delimiter=delimiter, strict=True)
    try:
        names = list(rows.fieldnames or ())
    except csv.Error as error:
        raise InputError(f"{path}:1: {error}") from error
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise InputError(f"{path}:1: several columns are called {', '.join(map(repr, twice))}")
    while True:
        begins = rows.reader.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            last = rows.reader.line_num
            spread = f" (in lines {begins} to {last})" if last > begins else ""
            problems.report(f"{path}:{begins}", f"{error}{spread}")
            continue
        where = f"{path}:{rows.line_num}"
        if None in row or None in row.values():
            problems.report(where, f"expected {len(names)} fields, as in the first line, got {_fields(row)}")
        else:
            yield where, dict(row)


def _fields(row: dict[Any, Any]) -> int:
    return sum(value is not None for key, value in row.items() if key is not None) + len(row.get(None) or ())


def _parquet(path: Path, problems: Problems) -> Iterator[tuple[str, Record]]:
    pq = parquet_module()
    import pyarrow as pa

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} can't be read as Parquet: {error}") from error


def parquet_module() -> Any:
    """`pyarrow.parquet`. Raises MissingExtra."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("data", "Parquet", "pyarrow") from error
    return pq

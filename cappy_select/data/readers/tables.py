"""Rows that can be counted and gone through more than once: files, folders of files, data sets of a hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cappy_select.core.errors import InputError
from cappy_select.data.formats import SUFFIXES, Problems, Record, is_rows, parquet_module, read_records
from cappy_select.data.instances import Instance, as_instance, our_fields, read_instances


class Row(NamedTuple):
    """One row: `where` it stands (`file:line`), in which `part` of its table (file or split), its number there."""

    where: str
    part: str
    number: int
    values: Record


@dataclass(frozen=True)
class Table:
    """The rows of one data set.

    Attributes:
        name: The data set's, for tasks and ids.
        split: Which split of the data set it is, where that is known.
        count: How many rows there are; may read all of them.
        rows: Goes through them; what can't be read goes to the Problems.
    """

    name: str
    split: str | None
    count: Callable[[], int]
    rows: Callable[[Problems], Iterator[Row]]


Source = str | Path | Table
"""What readers read: a path, or a table that is there already."""


def as_table(source: Source) -> Table:
    """A file, or all the files in a folder, as one table. Raises InputError for a folder without any."""
    if isinstance(source, Table):
        return source
    path = Path(source)
    parts = {bare_name(path): path}
    if path.is_dir():
        parts = _parts(path, row_files(path))
    return Table(
        name=bare_name(path),
        split=None,
        count=lambda: sum(_count(file) for file in parts.values()),
        rows=partial(_rows, parts),
    )


def row_files(folder: Path) -> list[Path]:
    """The files of a folder, and of those in it, that hold rows, by name. Raises InputError when there is none."""
    below = ((file, file.relative_to(folder).parts) for file in sorted(folder.rglob("*")))
    named = (file for file, parts in below if not any(part.startswith(".") for part in parts))
    files = [file for file in named if is_rows(file)]
    if not files:
        raise InputError(f"no file to read in the folder {folder}; looked for {', '.join(SUFFIXES)}")
    return files


def _parts(folder: Path, files: list[Path]) -> dict[str, Path]:
    """The files by their names without suffixes; with them, where two would be called the same."""
    bare = {file: str(file.relative_to(folder).parent / bare_name(file)) for file in files}
    counts = Counter(bare.values())
    return {name if counts[name] == 1 else str(file.relative_to(folder)): file for file, name in bare.items()}


def bare_name(path: Path) -> str:
    """`train` of `data/train.jsonl.gz`."""
    name = path.name
    for suffix in (".gz", *SUFFIXES):
        name = name.removesuffix(suffix)
    return name


def row_id(task: str, row: Row) -> str:
    """What an instance is called whose row has no name of its own."""
    return f"{task}|{row.part}|#{row.number}"


def read_rows(
    source: Source, problems: Problems, *, fields: Mapping[str, str] | None = None, task: str | None = None
) -> Iterator[tuple[str, Instance]]:
    """(place, instance) of rows with named fields; see `read_instances`, which reads files."""
    if not isinstance(source, Table):
        yield from read_instances(source, problems, fields=fields, task=task)
        return
    for row in source.rows(problems):
        given = our_fields(row.values, fields or {})
        for name, default in (("task", task or source.name), ("split", source.split)):
            if given.get(name) is None:
                given[name] = default
        if given.get("id") is None:
            given["id"] = row_id(given["task"], row)
        instance = as_instance(given, row.where, problems)
        if instance is not None:
            yield row.where, instance


def _count(file: Path) -> int:
    if file.name.lower().endswith(".parquet"):
        pq = parquet_module()
        try:
            return int(pq.read_metadata(file).num_rows)
        except (OSError, ValueError):
            return 0  # reading it will say what is wrong
    return sum(1 for _ in read_records(file, Problems()))


def _rows(parts: Mapping[str, Path], problems: Problems) -> Iterator[Row]:
    for part, file in parts.items():
        for where, values in read_records(file, problems):
            yield Row(where, part, int(where.rpartition(":")[2]), values)

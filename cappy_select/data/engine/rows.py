"""Rows of a partition on disk: Arrow tables, one after another in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def append_rows(path: Path, table: Any) -> None:
    """Add an Arrow table to a file of streams, one after another."""
    import pyarrow as pa

    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with path.open("ab") as sink, pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)


def read_rows(paths: Sequence[Path]) -> list[Any]:
    """The Arrow tables in files of streams, in order; a file that is not there has none."""
    import pyarrow as pa

    tables = []
    for path in paths:
        if not path.exists():
            continue
        size = path.stat().st_size
        with path.open("rb") as source:
            while source.tell() < size:
                tables.append(pa.ipc.open_stream(source).read_all())
    return tables

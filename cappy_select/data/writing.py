"""Instances into a file, whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from cappy_select.core.errors import InputError
from cappy_select.data.formats import parquet_module
from cappy_select.data.instances import Instance

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_BATCH = 10_000  # instances a Parquet row group


def check_output(path: str | Path, *, overwrite: bool = False) -> Path:
    """The path, if instances can be written to it. Raises InputError when they can't."""
    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: instances are written as {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise InputError(f"{path} is a folder")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; --overwrite replaces it")
    if not path.parent.is_dir():
        raise InputError(f"no such folder: {path.parent}")
    if path.name.endswith(".parquet"):
        parquet_module()
    return path


def write_instances(instances: Iterable[Instance], path: str | Path, *, overwrite: bool = False) -> int:
    """Write instances as JSONL, plain or `.gz`, or as Parquet; returns how many.

    They are written beside `path` and put in its place at the end: whatever goes wrong, also in the
    iterator, `path` is as it was. Without any instance nothing is written. Raises InputError.
    """
    path = check_output(path, overwrite=overwrite)
    write = _parquet if path.name.endswith(".parquet") else _jsonl
    with _in_place_of(path, overwrite) as (scratch, keep):
        count = write(instances, scratch)
        if count:
            keep()
    return count


@contextmanager
def _in_place_of(path: Path, overwrite: bool) -> Iterator[tuple[Path, Callable[[], None]]]:
    scratch = path.parent / f".{path.name}.{os.getpid()}.partial"

    def keep() -> None:
        check_output(path, overwrite=overwrite)  # another process may have been faster
        scratch.replace(path)

    try:
        yield scratch, keep
    except OSError as error:
        raise InputError(f"{path} can't be written: {error}") from error
    finally:
        scratch.unlink(missing_ok=True)


def _jsonl(instances: Iterable[Instance], path: Path) -> int:
    count = 0
    with path.open("xb") as raw:
        # Neither a name nor a time within: the same instances make the same bytes.
        packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if ".gz." in path.name else None
        with packed or raw as out:
            for count, instance in enumerate(instances, 1):  # noqa: B007
                line = json.dumps(instance.model_dump(mode="json"), ensure_ascii=False)
                out.write(line.encode() + b"\n")
    return count


def _parquet(instances: Iterable[Instance], path: Path) -> int:
    pq = parquet_module()
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    kinds = {"references": texts, "choices": texts, "negatives": texts}
    schema = pa.schema([(name, kinds.get(name, text)) for name in Instance.model_fields])
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as out:
        rest = iter(instances)
        while batch := list(islice(rest, _BATCH)):
            out.write_table(pa.Table.from_pylist([instance.model_dump(mode="json") for instance in batch], schema))
            count += len(batch)
    return count

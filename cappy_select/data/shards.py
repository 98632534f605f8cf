"""Reading the shards of a folder of pairs: what is not as `cappy build` writes it is an InputError with its place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cappy_select.core.errors import InputError
from cappy_select.data.folder import hashed, is_shard, read_manifest
from cappy_select.data.formats import parquet_module

_AGAIN = "build the pairs again"


def shards_of(folder: str | Path, side: str | None = None) -> list[dict[str, Any]]:
    """What the manifest says of the shards of one side (`train` or `validation`), or of all: name, size, SHA-256.

    Raises InputError when the manifest does not say it, or names files of elsewhere.
    """
    try:
        files = [dict(file) for file in read_manifest(folder)["files"]]
        for file in files:
            if not is_shard(file["name"]):
                raise InputError(
                    f"the manifest of {folder} names {file['name']!r:.100}, which is no shard's name: {_AGAIN}"
                )
            file["sha256"], file["size_bytes"]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the manifest of {folder} lacks {error}: {_AGAIN}") from error
    return [file for file in files if side is None or file["name"].startswith(f"{side}-")]


def check_shards(folder: str | Path, shards: Sequence[Mapping[str, Any]]) -> list[Path]:
    """The shards' paths. Raises InputError for the first whose content is not what the manifest says."""
    paths = []
    for shard in shards:
        path = Path(folder) / shard["name"]
        if hashed(path)["sha256"] != shard["sha256"]:
            raise InputError(f"{path} is not the file that the manifest is of (its SHA-256 is another): {_AGAIN}")
        paths.append(path)
    return paths


def read_pairs(file: Path, columns: Sequence[str], size: int = 2000) -> Iterator[dict[str, list[Any]]]:
    """The columns of a shard, `size` rows at a time: texts, and the score from 0 to 1 that the losses take.

    Raises InputError, with the row, for a null, another type or another score, and for a file that is no Parquet or
    lacks a column.
    """
    import pyarrow as pa

    done = 0
    try:
        with parquet_module().ParquetFile(file) as opened:
            _check_schema(file, opened.schema_arrow, columns)
            for batch in opened.iter_batches(batch_size=size, columns=list(columns)):
                found = {name: batch.column(name).to_pylist() for name in columns}
                for name, values in found.items():
                    _check_values(file, name, values, done)
                yield found
                done += batch.num_rows
    except FileNotFoundError as error:
        raise InputError(f"no such file: {file}") from error
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(f"{file} can't be read as Parquet: {error}") from error


def count_pairs(files: Sequence[Path]) -> int:
    """How many rows shards have. Raises InputError."""
    import pyarrow as pa

    total = 0
    for file in files:
        try:
            total += int(parquet_module().read_metadata(file).num_rows)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{file} can't be read as Parquet: {error}") from error
    return total


def _check_schema(file: Path, schema: Any, columns: Sequence[str]) -> None:
    from pyarrow import types

    for name in columns:
        if len(schema.get_all_field_indices(name)) != 1:
            raise InputError(f"{file} has no column {name!r}, or several; it has {', '.join(schema.names)}: {_AGAIN}")
        kind = schema.field(name).type
        value = kind.value_type if types.is_dictionary(kind) else kind
        right = types.is_floating(value) if name == "score" else types.is_string(value) or types.is_large_string(value)
        if not right:
            expected = "a number with a point" if name == "score" else "text"
            raise InputError(f"{file}: the column {name!r} must be {expected}, it is {kind}: {_AGAIN}")


def _check_values(file: Path, name: str, values: Sequence[Any], before: int) -> None:
    for row, value in enumerate(values, before + 1):
        if value is None:
            raise InputError(f"{file}:{row} has no {name}: {_AGAIN}")
        if name == "score" and not (math.isfinite(value) and 0 <= value <= 1):
            raise InputError(f"{file}:{row}: a score is from 0 to 1, got {value}: {_AGAIN}")

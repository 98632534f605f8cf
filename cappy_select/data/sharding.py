"""The last two stages of `build`: rows of each partition are assigned to shards as the mixture wants, shards written.

As `stages`: pure functions of a partition, or of a shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cappy_select.data.engine import Figures, append_rows, read_rows
from cappy_select.data.formats import parquet_module
from cappy_select.data.hashing import mixed
from cappy_select.data.mixture import apportioned
from cappy_select.data.stages import PAIRED, SIDES

SHARDED, WRITTEN = "sharded", "written"


class Sharding(NamedTuple):
    """What the last two stages share: how many training rows of each task a partition gives, and the shards."""

    work: Path
    partitions: int
    quotas: list[dict[str, int]]
    shards: tuple[int, int]  # train, validation


def shard(shared: Sharding, number: int, out: Path) -> Figures:
    """Choose the partition's rows, whole questions first; repeat or cut them; assign them to shards."""
    import pyarrow as pa

    tables = read_rows([shared.work / PAIRED / str(number) / "pairs.arrow"])
    if not tables:
        return {}
    table = pa.concat_tables(tables)
    order, key = (table.column(name).to_numpy() for name in ("order", "key"))
    task = table.column("task").to_numpy(zero_copy_only=False)
    training = table.column("side").to_numpy(zero_copy_only=False) == SIDES[0]
    chosen: list[_Rows] = []
    keys: list[_Keys] = []
    for name, quota in shared.quotas[number].items():
        places = np.flatnonzero(training & (task == name))
        places = places[np.lexsort((key[places], order[places]))]
        for copy, start in enumerate(range(0, quota, len(places)) if len(places) else ()):
            taken = places[: min(len(places), quota - start)]
            chosen.append(taken)
            keys.append(key[taken] + np.uint64(copy * _GOLDEN % 2**64))
            if sum(map(len, chosen)) >= _AT_ONCE:
                _spread(table, SIDES[0], shared.shards[0], chosen, keys, out)
                chosen, keys = [], []
    _spread(table, SIDES[0], shared.shards[0], chosen, keys, out)
    held_out = np.flatnonzero(~training)
    _spread(table, SIDES[1], shared.shards[1], [held_out], [key[held_out]], out)
    return {}


_AT_ONCE = 100_000  # rows: many copies of few are assigned in turns
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: far apart for neighbours
_Rows = npt.NDArray[np.int64]
_Keys = npt.NDArray[np.uint64]


def _spread(table: Any, side: str, shards: int, chosen: list[_Rows], keys: list[_Keys], out: Path) -> None:
    import pyarrow as pa

    places, order = np.concatenate([np.zeros(0, np.int64), *chosen]), np.concatenate([np.zeros(0, np.uint64), *keys])
    order = mixed(order)
    shard = (order >> np.uint64(32)) % np.uint64(max(1, shards))
    for number in range(shards):
        mine = np.flatnonzero(shard == number)
        if len(mine):
            rows = table.take(pa.array(places[mine])).drop_columns(["order", "side", "key"])
            append_rows(out / f"{side}-{number}.arrow", rows.append_column("key", pa.array(order[mine])))


def write(shared: Sharding, number: int, out: Path) -> Figures:
    """Shuffle one shard and write it. The training shards come first."""
    import pyarrow as pa

    side, shard = (SIDES[0], number) if number < shared.shards[0] else (SIDES[1], number - shared.shards[0])
    folders = [shared.work / SHARDED / str(partition) for partition in range(shared.partitions)]
    table = pa.concat_tables(read_rows([folder / f"{side}-{shard}.arrow" for folder in folders]) or [_nothing()])
    table = table.take(pa.array(np.argsort(table.column("key").to_numpy(), kind="stable")))
    tokens = np.bincount(table.column("tokens").to_numpy(), minlength=1)
    scores = np.histogram(table.column("score").to_numpy(), SCORE_BINS, (0.0, 1.0))[0]
    counts = Counter(zip(table.column("task").to_pylist(), table.column("kind").to_pylist(), strict=True))
    rows = table.select(PAIR_FIELDS)
    parquet_module().write_table(rows, out / SHARD, compression="zstd", row_group_size=10_000)
    return {
        "side": side,
        "rows": table.num_rows,
        "tokens": tokens.tolist(),
        "scores": scores.tolist(),
        "counts": [[*named, count] for named, count in sorted(counts.items())],
    }


PAIR_FIELDS = ["instruction", "response", "score", "kind", "task", "group"]
SHARD = "rows.parquet"
SCORE_BINS = 20


def _nothing() -> Any:
    import pyarrow as pa

    kinds = {"score": pa.float32(), "key": pa.uint64(), "tokens": pa.int32()}
    names = [*PAIR_FIELDS, "tokens", "key"]
    return pa.schema([(name, kinds.get(name, pa.string())) for name in names]).empty_table()


def quotas(available: Sequence[dict[str, int]], wanted: dict[str, int]) -> list[dict[str, int]]:
    """Each partition's share of each task's rows, in proportion to what it has."""
    shares: list[dict[str, int]] = [{} for _ in available]
    for task, total in sorted(wanted.items()):
        parts = apportioned(total, [counts.get(task, 0) for counts in available])
        for share, part in zip(shares, parts, strict=True):
            if part:
                share[task] = part
    return shares

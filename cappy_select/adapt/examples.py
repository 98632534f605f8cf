"""Examples, dealt once: to learn from, and to be held out. Whole groups, and all that ask the same, stay together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from cappy_select.adapt.folder import HELD_OUT, TRAIN, is_rows
from cappy_select.data.hashing import hash64
from cappy_select.data.instances import Instance, read_instances
from cappy_select.data.records import Problems
from cappy_select.data.sample import import_recorded
from cappy_select.data.steps import is_held_out
from cappy_select.data.store import SampleStore
from cappy_select.data.writing import write_instances
from cappy_select.errors import InputError

MakeInstances = Callable[[], Iterable[Instance]]


class Dealt(NamedTuple):
    """How many examples are on each side."""

    train: int
    held_out: int


def take_in(recorded: Sequence[str | Path], store: SampleStore, problems: Problems, fields: Mapping[str, str]) -> int:
    """Take recorded samples, files or stores, into a store; returns how many are new."""
    new = 0
    for path in recorded:
        if is_rows(path):
            new += import_recorded(path, store, problems, fields=fields)
        else:
            with SampleStore(path) as other:
                for instance, samples in other.instances():
                    seen: dict[tuple[str, str, str], int] = {}
                    rows = []
                    for _, sample, _ in samples:
                        named = sample.model, repr(sorted(sample.sampling.items())), sample.response
                        rows.append((sample, seen.get(named, 0)))
                        seen[named] = seen.get(named, 0) + 1
                    new += store.add_recorded([(instance, rows)])
    return new


def examples_of(
    files: Sequence[str | Path], store: SampleStore, fields: Mapping[str, str], limit: int | None, problems: Problems
) -> Iterator[Instance]:
    """The files' instances; without files those that the store has samples of."""
    if files:
        for file in files:
            yield from (row for _, row in islice(read_instances(file, problems, fields=fields), limit))
    else:
        yield from (instance for instance, _ in islice(store.instances(), limit))


def deal(instances: Iterable[Instance], folder: Path, share: float, seed: int) -> Dealt:
    """Write both sides' files into a folder.

    The held-out side is what `split` holds out, when anything is; else a share drawn by a hash of the group, or the
    instruction. Raises InputError when a side has no example.
    """
    rows = list(instances)
    told = any(is_held_out(row) for row in rows)
    held_out = [
        row
        for row in rows
        if (is_held_out(row) if told else hash64(seed, "held out", row.group or row.instruction) < share * 2**64)
    ]
    # What asks the same as a held-out one would give it away.
    apart = {row.instruction for row in held_out} | {row.group for row in held_out if row.group}
    sides = {TRAIN: [row for row in rows if not {row.instruction, row.group} & apart], HELD_OUT: held_out}
    for side, members in sides.items():
        if not members:
            what = "held out for the report" if side == HELD_OUT else "to learn from"
            raise InputError(
                f"of {len(rows)} examples none is {what}: give more examples, or another --held-out (a share)"
            )
        (folder / side).parent.mkdir(parents=True, exist_ok=True)
        bare = (row.model_copy(update={"split": None}) for row in members)  # both sides are dealt now
        write_instances(bare, folder / side, overwrite=True)
    return Dealt(len(sides[TRAIN]), len(sides[HELD_OUT]))


def dealt(folder: Path, *sides: Path) -> Iterator[Instance]:
    """The instances of some sides, in order."""
    for side in sides:
        yield from (row for _, row in read_instances(folder / side, Problems(strict=True)))

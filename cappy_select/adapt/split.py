"""Instances, split once: to learn from, and to be held out. Whole groups, and all that ask the same, stay together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from cappy_select.adapt.folder import HELD_OUT, TRAIN
from cappy_select.core.errors import InputError
from cappy_select.data.formats import Problems, is_rows, read_records
from cappy_select.data.hashing import hash64
from cappy_select.data.instances import Instance, instance_of, read_instances, stem_of
from cappy_select.data.pairs import folded
from cappy_select.data.sample import import_recorded
from cappy_select.data.stages import is_held_out
from cappy_select.data.store import SampleStore
from cappy_select.data.store_rows import canonical, key_of
from cappy_select.data.writing import write_instances


def take_in(
    recorded: Sequence[str | Path],
    instances: Sequence[str | Path],
    store: SampleStore,
    problems: Problems,
    fields: Mapping[str, str],
) -> None:
    """Take recorded samples, files or stores, into a store. Rows that name no task are of the instances' one."""
    task = stem_of(instances[0]) if len(instances) == 1 else None
    for path in recorded:
        if is_rows(path):
            import_recorded(path, store, problems, fields=fields, task=task)
        else:
            with SampleStore(path) as other:
                for instance, samples in other.instances():
                    before: Counter[tuple[str, str, str]] = Counter()
                    rows = []
                    for _, sample, _ in samples:
                        named = sample.model, canonical(sample.sampling), sample.response
                        rows.append((sample, before[named]))
                        before[named] += 1
                    store.add_recorded([(instance, rows)])


def instances_of(
    files: Sequence[str | Path],
    recorded: Sequence[str | Path],
    store: SampleStore,
    fields: Mapping[str, str],
    limit: int | None,
    problems: Problems,
) -> Iterator[Instance]:
    """The files' instances; without files those that the recorded samples are of."""
    for file in files:
        yield from (row for _, row in islice(read_instances(file, problems, fields=fields), limit))
    if files:
        return
    for path in recorded:
        if is_rows(path):
            yield from islice(_asked(path, fields), limit)
        else:  # a store knows no groups and no splits
            yield from (instance for instance, _ in islice(store.instances(), limit))


def _asked(path: str | Path, fields: Mapping[str, str]) -> Iterator[Instance]:
    """The instances of a file of recorded samples; what is wrong with it was told when they were taken in."""
    ignored = Problems()
    for where, row in read_records(path, ignored):
        row.setdefault("references", [])
        instance = instance_of(row, where, ignored, fields=fields, task=stem_of(path))
        if instance is not None:
            yield instance


def split(instances: Iterable[Instance], folder: Path, share: float, seed: int) -> tuple[int, int]:
    """Write both sides' files into a folder; returns how many instances each has. One that stands twice counts once.

    The held-out side is what `split` holds out, when anything is; else a share drawn by a hash of the group, or the
    instruction. Raises InputError when a side has no instance.
    """
    rows = list({key_of(row): row for row in instances}.values())
    told = any(is_held_out(row) for row in rows)
    held_out = [
        row
        for row in rows
        if (
            is_held_out(row) if told else hash64(seed, "held out", row.group or folded(row.instruction)) < share * 2**64
        )
    ]
    # What asks the same as a held-out one, but for case and blanks, would give it away.
    apart = set(chain.from_iterable(map(_names, held_out)))
    sides = {TRAIN: [row for row in rows if not apart.intersection(_names(row))], HELD_OUT: held_out}
    for side, members in sides.items():
        if not members:
            what = "held out for the report" if side == HELD_OUT else "to learn from"
            raise InputError(
                f"of {len(rows)} instances none is {what}: give more instances, or another --held-out (a share)"
            )
        (folder / side).parent.mkdir(parents=True, exist_ok=True)
        bare = (row.model_copy(update={"split": None}) for row in members)  # both sides are assigned now
        write_instances(bare, folder / side, overwrite=True)
    return len(sides[TRAIN]), len(sides[HELD_OUT])


def _names(row: Instance) -> Iterator[tuple[str, str]]:
    """What an instance must not share with one of the other side."""
    yield "instruction", folded(row.instruction)
    if row.group:
        yield "group", row.group


def of_side(folder: Path, *sides: Path) -> Iterator[Instance]:
    """The instances of some sides, in order."""
    for side in sides:
        yield from (row for _, row in read_instances(folder / side, Problems(strict=True)))

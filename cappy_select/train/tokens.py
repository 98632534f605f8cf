"""Pairs as tokens on disk: encoded once, memory-mapped, read by row or by group.

FOLDER/ids.bin       token ids of all pairs, one after another (uint16 or uint32)
FOLDER/starts.npy    int64[n + 1], where each pair begins
FOLDER/responses.npy int32[n], tokens before the response's: the token type changes there
FOLDER/scores.npy    float32[n]
FOLDER/groups.npy    int64[groups + 1], where each group begins: the rows of a group stand together; what a mixture
                     repeats is a group again, not a larger one
FOLDER/tokens.json   what it was made of; written last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cappy_select.core.errors import InputError
from cappy_select.core.files import disk_errors, whole_folder
from cappy_select.core.json_text import loads
from cappy_select.data.shards import check_shards, count_pairs, read_pairs, shards_of
from cappy_select.scorer.encoding import PairEncoder

# 2: repeated rows are groups of their own; 3: special tokens' names in a text are text; 4: of shards whose content and
# labels were checked
_FORMAT = 4
_COLUMNS = ["instruction", "response", "score", "task", "group"]


@dataclass(frozen=True)
class TokenSet:
    """The tokens of pairs. `cut` is how many pairs did not fit the window."""

    ids: npt.NDArray[np.unsignedinteger[Any]]
    starts: npt.NDArray[np.int64]
    responses: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    tasks: tuple[str, ...]  # by group
    cut: int

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[n], tokens of each pair."""
        return np.diff(self.starts)

    def padded(
        self, rows: Sequence[int] | npt.NDArray[np.int64], tokens: int, pad: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Ids and token types, int32[rows, tokens] each, and lengths, int32[rows]. A row of -1 is empty: one token."""
        ids = np.full((len(rows), tokens), pad, np.int32)
        types = np.zeros((len(rows), tokens), np.int32)
        lengths = np.ones(len(rows), np.int32)
        for place, row in enumerate(rows):
            if row >= 0:
                found = self.ids[self.starts[row] : self.starts[row + 1]]
                ids[place, : len(found)] = found
                types[place, self.responses[row] : len(found)] = 1
                lengths[place] = len(found)
        return ids, types, lengths


def tokenised(
    pairs: Path,
    side: str,
    encoder: PairEncoder,
    tokenizer_sha256: str,
    cache: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> TokenSet:
    """The tokens of one side (`train` or `validation`) of a folder of pairs; made when they are not in the cache.

    Raises InputError when `pairs` is no folder of pairs, the side has no row, or a shard is not what the manifest says
    or has a row that can't be trained on.
    """
    shards = shards_of(pairs, side)
    made_of = {
        "pairs": [shard["sha256"] for shard in shards],
        "side": side,
        "tokenizer": tokenizer_sha256,
        "max_length": encoder.room + encoder.special_count,
        "format": _FORMAT,
    }
    name = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / f"{side}-{name}"
    if not _whole(folder):
        _make(check_shards(pairs, shards), folder, encoder, made_of, on_progress)
    return _load(folder)


def _whole(folder: Path) -> bool:
    """Whether all files are there and as long as they were, and the labels can be trained on."""
    try:
        sizes = loads((folder / "tokens.json").read_text(encoding="utf-8"))["sizes"]
        scores = np.load(folder / "scores.npy", mmap_mode="r")
        return all((folder / name).stat().st_size == size for name, size in sizes.items()) and bool(
            ((scores >= 0) & (scores <= 1)).all()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _make(
    files: Sequence[Path], folder: Path, encoder: PairEncoder, made_of: dict[str, Any], told: Callable[[int, int], None]
) -> None:
    total = count_pairs(files)
    if not total:
        raise InputError(f"these pairs have no row for {made_of['side']}")
    with disk_errors(folder), whole_folder(folder) as scratch:
        kind = np.dtype(np.uint16 if encoder.vocabulary <= 2**16 else np.uint32)
        lengths: list[int] = []
        responses: list[int] = []
        scores: list[float] = []
        names: list[tuple[str, str]] = []
        digests: list[int] = []
        cut = 0
        with (scratch / "unsorted.bin").open("wb") as out:
            for file in files:
                for columns in read_pairs(file, _COLUMNS):
                    asked, given = (list(encoder.tokens(columns[name])) for name in ("instruction", "response"))
                    for first, second in zip(asked, given, strict=True):
                        pair = encoder.pair(first, second)
                        ids, types = encoder.join(pair)
                        out.write(ids.astype(kind).tobytes())
                        lengths.append(len(ids))
                        responses.append(int(np.argmax(types)) if types.any() else len(ids))
                        cut += pair.instruction_cut + pair.response_cut > 0
                    scores += columns["score"]
                    names += zip(columns["task"], columns["group"], strict=True)
                    texts = (columns[name] for name in ("instruction", "response", "score"))
                    digests += map(hash, zip(*texts, strict=True))
                    told(len(columns["score"]), total)
        groups, tasks = _grouped(names, np.array(digests))
        _sort_by_group(scratch, kind, np.array(lengths), np.array(responses), np.array(scores), groups)
        (scratch / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
        sizes = {file.name: file.stat().st_size for file in scratch.iterdir()}
        facts = made_of | {"dtype": kind.name, "rows": total, "cut": cut, "sizes": sizes}
        (scratch / "tokens.json").write_text(json.dumps(facts), encoding="utf-8")


def _grouped(
    names: Sequence[tuple[str, str]], digests: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """int64[n], the number of each row's group, and the groups' tasks; numbered as they first come. A row's second
    copy is in a second group of its name: within one, a ranking loss would compare it with itself."""
    numbers: dict[tuple[str, str], int] = {}
    named = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    order = np.lexsort((digests, named))  # stable
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(named[order]) != 0) | (np.diff(digests[order]) != 0)
    begins = np.flatnonzero(new)
    copies = np.empty(len(order), np.int64)
    copies[order] = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order))))
    _, first, group = np.unique(named * (copies.max() + 1) + copies, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[group], [names[row][0] for row in np.sort(first)]


def _sort_by_group(
    folder: Path,
    kind: np.dtype[Any],
    lengths: npt.NDArray[np.int64],
    responses: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
) -> None:
    """Put the rows of each group together; within a group as they came."""
    order = np.argsort(group, kind="stable")
    ids = np.memmap(folder / "unsorted.bin", kind, "r")
    begins = np.concatenate([[0], np.cumsum(lengths)])
    with (folder / "ids.bin").open("wb") as out:
        for row in order:
            out.write(ids[begins[row] : begins[row + 1]].tobytes())
    del ids
    (folder / "unsorted.bin").unlink()
    np.save(folder / "starts.npy", np.concatenate([[0], np.cumsum(lengths[order])]))
    np.save(folder / "responses.npy", responses[order].astype(np.int32))
    np.save(folder / "scores.npy", scores[order].astype(np.float32))
    np.save(folder / "groups.npy", np.concatenate([[0], np.cumsum(np.bincount(group))]))


def _load(folder: Path) -> TokenSet:
    facts = loads((folder / "tokens.json").read_text(encoding="utf-8"))
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("starts", "responses", "scores", "groups")
    }
    return TokenSet(
        ids=np.memmap(folder / "ids.bin", facts["dtype"], "r"),
        tasks=tuple(loads((folder / "tasks.json").read_text(encoding="utf-8"))),
        cut=facts["cut"],
        **arrays,
    )

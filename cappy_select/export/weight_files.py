"""Which files of a checkpoint's folder hold its weights: one rule, for training and export alike.

The file that Hugging Face names (`model.safetensors`), else the index (`model.safetensors.index.json`), decides; what
else lies there is not looked at. Safetensors first, then what torch and Flax wrote.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from cappy_select.core.errors import InputError

Kind = Literal["safetensors", "bin", "msgpack"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_NAMES: Mapping[Kind, str] = {
    "safetensors": "model.safetensors",
    "bin": "pytorch_model.bin",
    "msgpack": "flax_model.msgpack",
}
_STRAYS = ("*.safetensors", "*.bin", "*.msgpack")


class WeightFiles(NamedTuple):
    """`name` is the file or the index that decided; `files` are those with weights, `named` the tensors that an index
    says each holds (None without an index)."""

    kind: Kind
    name: str
    files: tuple[Path, ...]
    named: Mapping[str, frozenset[str]] | None


def weight_patterns(kind: Kind) -> tuple[str, str, str]:
    """The names that a folder's weights can have: whole, an index, and what it lists."""
    stem, _, suffix = _NAMES[kind].rpartition(".")
    return _NAMES[kind], f"{_NAMES[kind]}.index.json", f"{stem}-*-of-*.{suffix}"


def weight_files(folder: Path, kinds: Sequence[Kind] = KINDS) -> WeightFiles:
    """The files that hold a checkpoint's weights.

    Args:
        folder: The checkpoint's.
        kinds: Which kinds can be read.

    Raises InputError when there is none, when several files lie there and nothing says which, and when an index can't
    be read or lists files that are missing or elsewhere.
    """
    _check_config(folder)
    for kind in kinds:
        whole, index, _ = weight_patterns(kind)
        if (folder / whole).is_file():
            return WeightFiles(kind, whole, (folder / whole,), None)
        if (folder / index).is_file():
            named = _indexed(folder, index, kind)
            if kind == "safetensors":
                for name in named:
                    check_named(folder / name, _tensors_in(folder / name), named[name])
            return WeightFiles(kind, index, tuple(folder / name for name in named), named)
    there = sorted(path.name for pattern in _STRAYS for path in folder.glob(pattern))
    expected = ", ".join(_NAMES[kind] for kind in kinds)
    if not there:
        raise InputError(f"{folder} has no weights: expected {expected}")
    shown = ", ".join(there[:4]) + (f" and {len(there) - 4} more" if there[4:] else "")
    raise InputError(
        f"{folder} has no weights that are named as such: expected {expected}, or such a name with .index.json where "
        f"they are in several files; found {shown}"
    )


def check_named(file: Path, found: Collection[str], named: Collection[str]) -> None:
    """Raises InputError when a file holds other tensors than its index says: then two files could hold the same one."""
    odd = sorted(set(found) ^ set(named))
    if odd:
        raise InputError(f"{file} does not hold what the index says: they differ in {odd[0]!r:.100}")


def _tensors_in(file: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            return list(opened.keys())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} can't be read: {error}") from error


def _check_config(folder: Path) -> None:
    """Transformers follows a name in config.json, and an adapter's base model: here, two more rules."""
    if (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder} holds an adapter (adapter_config.json): merge it into the weights first")
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return  # said where it is read
    if isinstance(config, dict) and config.get("transformers_weights") is not None:
        raise InputError(
            f"{folder / 'config.json'} names other weights ({config['transformers_weights']!r:.80}, "
            f"`transformers_weights`): name the file {_NAMES['safetensors']}, and take the entry out"
        )


def _indexed(folder: Path, index: str, kind: Kind) -> dict[str, frozenset[str]]:
    try:
        listed = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
        pairs = [(tensor, name) for tensor, name in listed.items() if isinstance(name, str)]
        if not pairs or len(pairs) != len(listed):
            raise ValueError("its weight_map must name a file for each tensor")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{folder / index} can't be read as an index of weights: {error!r:.200}") from error
    found: dict[str, set[str]] = {}
    for tensor, name in pairs:
        found.setdefault(name, set()).add(tensor)
    for name in sorted(found):
        # By name alone: in a hub's cache the files themselves are links.
        if Path(name).name != name or "\\" in name or not name.endswith(f".{kind}"):
            raise InputError(f"{folder / index} lists {name!r:.100}: it may only list .{kind} files of its own folder")
        if not (folder / name).is_file():
            raise InputError(f"{folder / index} lists {name}, which is not there")
    return {name: frozenset(found[name]) for name in sorted(found)}

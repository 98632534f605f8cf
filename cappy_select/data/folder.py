"""A folder of pairs: what is whole, what is begun, and how one becomes the other.

A manifest means a whole folder: it is written last. What is being made is in `.work`, with a fingerprint of all that
it is made of; a run with the same fingerprint goes on there, any other begins anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cappy_select.core.errors import InputError
from cappy_select.core.files import disk_errors, scratch_of, write_json, write_whole
from cappy_select.core.json_text import loads

MANIFEST = "manifest.json"
LEFT_OUT = "left_out.jsonl"
FORMAT = 1
WORK = ".work"
LOCK = "lock"
_OURS = "ours.json"  # in the work folder: names in the folder itself that a publication, also a killed one, may remove
_SHARD_NAME = re.compile(r"(train|validation)-\d{5}-of-\d{5}\.parquet")


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder of pairs. Raises InputError when there is none."""
    path = Path(folder) / MANIFEST
    try:
        manifest = loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        unfinished = "; it is not finished: run `cappy build` again" if (Path(folder) / WORK).is_dir() else ""
        raise InputError(f"{folder} holds no pairs: there is no {MANIFEST}{unfinished}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or "fingerprint" not in manifest:
        raise InputError(f"{path} is no manifest of pairs of format {FORMAT}")
    return manifest


def whole(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The manifest, when all is there and was made in this very way."""
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder)
    if manifest["fingerprint"] != fingerprint:
        return None
    if damaged_file(folder, manifest) is not None:
        return None
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return manifest


def damaged_file(folder: Path, manifest: dict[str, Any]) -> Path | None:
    """The first file that is missing, or not as long as the manifest says."""
    for file in manifest["files"]:
        path: Path = folder / file["name"]
        if not path.is_file() or path.stat().st_size != file["size_bytes"]:
            return path
    return None


def check_replaceable(folder: Path, fingerprint: str, overwrite: bool) -> None:
    """Raises InputError when the folder holds what must not be replaced."""
    if (folder / MANIFEST).exists():
        same = read_manifest(folder)["fingerprint"] == fingerprint
        if not overwrite:
            why = "are damaged" if same else "were made in another way or of other input"
            raise InputError(f"{folder} holds pairs that {why}: --overwrite replaces them, or give another folder")
    elif folder.exists() and not _is_begun(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty and holds no pairs: give another folder")


def _is_begun(folder: Path) -> bool:
    """Whether its `.work` is one of ours: with a fingerprint, or not yet with anything."""
    work = folder / WORK
    if not work.is_dir():
        return False
    begun = work / "fingerprint"
    return begun.is_file() or {path.name for path in work.iterdir()} <= {LOCK, scratch_of(begun).name}


def begin(work: Path, fingerprint: str) -> None:
    """Go on with what was begun in this very way; clear away what was begun in another."""
    begun = work / "fingerprint"
    if begun.is_file() and begun.read_text() == fingerprint:
        return
    with disk_errors(work):
        for path in work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (LOCK, _OURS):
                path.unlink()
        write_whole(begun, fingerprint)


def publish(
    folder: Path, manifest: dict[str, Any], shards: Mapping[str, Path], problems: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Put the shards, by name, and the list of what was left out in their place; then the manifest, with the files."""
    work = folder / WORK
    with disk_errors(folder):
        if not (work / "publishing").exists():
            older = _older(folder)
            write_whole(work / _OURS, json.dumps([*older, *shards, LEFT_OUT]))
            (folder / MANIFEST).unlink(missing_ok=True)
            for name in older:
                (folder / name).unlink(missing_ok=True)
            (work / "publishing").touch()
        for name, made in shards.items():
            if made.exists():  # else it is in its place since a run that was killed here
                made.replace(folder / name)
        if problems:
            lines = (json.dumps({"where": Path(w).name, "message": m}, ensure_ascii=False) for w, m in problems)
            (folder / LEFT_OUT).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="replace")
        manifest = manifest | {"files": [hashed(folder / name) for name in shards]}
        write_json(folder / MANIFEST, manifest)
        shutil.rmtree(work)
    return manifest


def _older(folder: Path) -> list[str]:
    """What an older manifest lists and a killed publication put there; others' files may have such names, too."""
    names: list[Any] = []
    if (folder / WORK / _OURS).is_file():
        names += json.loads((folder / WORK / _OURS).read_text())
    if (folder / MANIFEST).is_file():
        names += [file["name"] for file in read_manifest(folder)["files"]] + [LEFT_OUT]
    return [str(name) for name in names if _SHARD_NAME.fullmatch(str(name)) or name == LEFT_OUT]


def shard_names(train: int, validation: int) -> list[str]:
    """The files' names: those of the training shards first."""
    counts = {"train": train, "validation": validation}
    return [f"{side}-{at:05}-of-{of:05}.parquet" for side, of in counts.items() for at in range(of)]


def is_shard(name: Any) -> bool:
    """Whether a file is called as shards are."""
    return isinstance(name, str) and _SHARD_NAME.fullmatch(name) is not None


def hashed(path: str | Path) -> dict[str, Any]:
    """A file's name, size and SHA-256. Raises InputError."""
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return {"name": Path(path).name, "size_bytes": file.tell(), "sha256": sha256}
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    except OSError as error:
        raise InputError(f"{path} can't be read: {error}") from error

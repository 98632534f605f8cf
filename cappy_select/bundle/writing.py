"""Making a bundle's folder: whole, or not at all."""

from __future__ import annotations

import glob
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cappy_select.bundle.bundle import Bundle, load_bundle
from cappy_select.bundle.manifest import MANIFEST, MODEL, TOKENIZER, FileRecord, Manifest
from cappy_select.core.errors import (
    BundleError,
    InputError,
)
from cappy_select.core.files import write_whole

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LOCK, _OLD = ".lock", "old"  # in the scratch folder of an export: held while it runs; the bundle that it replaces
_MAKING_S = 60.0


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size_bytes=file.tell())


def draft_bundle(folder: Path, fields: Mapping[str, Any]) -> Bundle:
    """The bundle a folder with a model and a tokenizer would be; nothing is written, so it can still be refused.

    Args:
        folder: Holds `model.onnx` and `tokenizer.json`, which are hashed.
        fields: Those of a `Manifest`, without `files`.

    Returns:
        The bundle, with an empty `digest`.
    """
    files = {name: _record(folder / name) for name in (MODEL, TOKENIZER)}
    return Bundle(folder, Manifest(files=files, **fields), digest="")


def save_bundle(folder: Path, fields: Mapping[str, Any]) -> Bundle:
    """Complete a folder that holds the model and the tokenizer: write its manifest, last.

    Args:
        folder: Holds `model.onnx` and `tokenizer.json`, which are hashed.
        fields: Those of a `Manifest`, without `files`.

    Returns:
        The bundle, as `load_bundle` reads it.
    """
    manifest = draft_bundle(folder, fields).manifest
    write_whole(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    return load_bundle(folder)


@contextmanager
def new_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A scratch folder beside `out` that becomes `out` when the block ends well, and vanishes when not.

    Only a bundle, or an empty folder, is ever replaced.

    Args:
        out: The folder to make; its parents are made too.
        overwrite: Replace a bundle that is there. Anything else never is.

    Yields:
        The scratch folder.

    Raises:
        InputError: `out` holds anything else, is a bundle and `overwrite` is false, or can't be written.
    """
    try:
        out = out.resolve()
        _check_replaceable(out, overwrite)
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
        lock = _lock_of(scratch)
        lock.acquire()
    except OSError as error:
        raise InputError(f"{str(out)!r} can't be written: {error.strerror}") from error
    try:
        yield scratch
        scratch.chmod(0o755)  # mkdtemp makes it private; a bundle is as readable as any folder
        _unlock(lock)
        _put_in_place(scratch, out, overwrite)
    finally:
        _unlock(lock)
        shutil.rmtree(scratch, ignore_errors=True)


def _put_in_place(scratch: Path, out: Path, overwrite: bool) -> None:
    _check_replaceable(out, overwrite)
    if not out.exists():
        scratch.replace(out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent)) / _OLD
    out.replace(aside)
    try:
        _check_replaceable(aside, overwrite)  # nobody can put anything into it any more under its old name
        scratch.replace(out)
    except BaseException:
        aside.replace(out)
        aside.parent.rmdir()
        raise
    shutil.rmtree(aside.parent)


def _check_replaceable(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{str(out)!r} is a file: name a folder that does not exist")
    held = list(out.iterdir())
    if not held:
        return
    if any(path.name not in (MANIFEST, MODEL, TOKENIZER) or not path.is_file() for path in held):
        raise InputError(f"{str(out)!r} holds other things than a bundle and is not replaced: name another folder")
    if not overwrite:
        raise InputError(f"{str(out)!r} exists already: name another folder, or pass overwrite")
    try:
        load_bundle(out)
    except BundleError as error:
        raise InputError(f"{str(out)!r} is no bundle and is not replaced: name another folder ({error})") from error


def _sweep(out: Path) -> None:
    """Remove what a killed export of the same name left behind; one that runs holds its folder's lock."""
    for stale in out.parent.glob(f".{glob.escape(out.name)}.partial-*"):
        if time.time() - stale.stat().st_mtime < _MAKING_S:
            continue  # it may be about to take its lock
        lock = _lock_of(stale)
        try:
            lock.acquire(timeout=0)
        except TimeoutError:
            continue
        if (stale / _OLD).is_dir() and not out.exists():  # killed between moving the old one and the new one
            (stale / _OLD).replace(out)
        _unlock(lock)
        shutil.rmtree(stale, ignore_errors=True)


def _lock_of(scratch: Path) -> BaseFileLock:
    from filelock import FileLock  # 40 ms, and only who writes bundles needs it

    return FileLock(scratch / _LOCK)


def _unlock(lock: BaseFileLock) -> None:
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)

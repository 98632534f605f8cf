"""The bundle: a scorer on disk, where the offline and the online line meet.

A folder of `manifest.json`, `model.onnx` and `tokenizer.json`. The manifest is written last and holds the
SHA-256 of the other files, so a folder with a manifest is a whole bundle, and what is loaded is what was
measured when it was made.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cappy_select.errors import (
    BundleDamaged,
    BundleError,
    BundleFormatError,
    BundleNotFound,
    InputError,
    validation_message,
)
from cappy_select.types import CutSide

if TYPE_CHECKING:
    from filelock import BaseFileLock

FORMAT_VERSION = 1
MANIFEST, MODEL, TOKENIZER = "manifest.json", "model.onnx", "tokenizer.json"
MODEL_CONFIG = "config"  # in the metadata of model.onnx: what training needs and the graph does not show, as JSON
_MOST_READ = 64 * 2**20  # bytes of a manifest or a tokenizer; the largest published tokenizers have half of it
_MOST_IN_MEMORY = 256 * 2**20  # bytes of a model's verified copy
_CHUNK = 2**20
_LOCK, _OLD = ".lock", "old"  # in the scratch folder of an export: held while it runs; the bundle that it replaces
_MAKING_S = 60.0
EMBEDDED = Path(__file__).parent / "bundles" / "cappy-mini"

Precision = Literal["fp32", "fp16", "int8"]


class FileRecord(BaseModel):
    """What a file of the bundle must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0, lt=2**31)  # protobuf's own limit


class Manifest(BaseModel):
    """What a bundle is, where it comes from and what was measured when it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: str = Field(min_length=1)
    version: str = "0"
    architecture: str
    max_length: int = Field(ge=8, le=2**20, description="tokens of instruction, response and special tokens together")
    truncation: Literal["longest_first"] = "longest_first"
    cut_side: CutSide = "right"
    precision: Precision
    gates: dict[str, float] = Field(default_factory=dict, description="measured against the fp32 checkpoint at export")
    provenance: dict[str, Any] = Field(default_factory=dict)
    licenses: dict[str, str] = Field(default_factory=dict, description="what -> licence, as far as known")
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are there. `digest` identifies its exact content (SHA-256 of the manifest)."""

    path: Path
    manifest: Manifest
    digest: str

    @property
    def is_embedded(self) -> bool:
        """Whether it lies among the library's own code, and is trusted as that is."""
        return self.path == EMBEDDED

    def read(self, name: str) -> bytes:
        """A small file's content, verified against the manifest: what is hashed is what is used.

        Raises BundleDamaged when it is not what the manifest describes.
        """
        most = min(self.manifest.files[name].size_bytes, _MOST_READ) + 1
        with self._opened(name) as file:
            content = file.read(most)
        self._check(name, hashlib.sha256(content).hexdigest(), len(content))
        return content

    @contextmanager
    def verified(self, name: str) -> Iterator[Path]:
        """A name for a file's verified content, for a reader that takes names.

        It names a private copy, made of the very bytes that were hashed, which nobody else can change: not by putting
        another file in its place, nor by writing into it. No other file (a model's external data, which no manifest
        lists) is found beside it. A name, because onnxruntime needs half the memory for a file that it does for
        bytes: 1.8 against 4.1 GB for RoBERTa-large. The embedded bundle is hashed and not copied.
        Raises BundleDamaged as `read` does, BundleError when there is no room for the copy.
        """
        expected = self.manifest.files[name].size_bytes
        if self.is_embedded:
            with (self.path / name).open("rb") as file:  # still this file when an upgrade puts another in its place
                self._check(name, hashlib.file_digest(file, "sha256").hexdigest(), file.tell())
                file.seek(0)
                opened = Path("/dev/fd") / str(file.fileno())
                yield opened if opened.exists() else self.path / name
            return
        with self._opened(name) as source, _private_file(expected) as (copy, path):
            sha256, size = hashlib.sha256(), 0
            while chunk := source.read(min(_CHUNK, expected + 1 - size)):  # a file that grows meanwhile ends, too
                sha256.update(chunk)
                try:
                    if copy.write(chunk) != len(chunk):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError as error:
                    raise BundleError(
                        f"{self.path / name} is verified in a private copy, and there is no room for its {expected} "
                        f"bytes in {tempfile.gettempdir()}: {error.strerror}; TMPDIR names another folder"
                    ) from error
                size += len(chunk)
            self._check(name, sha256.hexdigest(), size)
            copy.seek(0)
            yield path

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        try:
            file = (self.path / name).open("rb", buffering=0)
        except OSError as error:
            raise BundleDamaged(f"{self.path / name} can't be read: {error.strerror}") from error
        with file:
            yield file

    def _check(self, name: str, sha256: str, size_bytes: int) -> None:
        expected = self.manifest.files[name]
        if (sha256, size_bytes) != (expected.sha256, expected.size_bytes):
            raise BundleDamaged(
                f"{self.path / name} is damaged: {size_bytes} bytes with SHA-256 {sha256[:12]}…, the manifest "
                f"says {expected.size_bytes} bytes with {expected.sha256[:12]}…: fetch or export the bundle again"
            )

    def __str__(self) -> str:
        return f"{self.manifest.name} {self.manifest.version} ({self.manifest.precision}, {self.digest[:12]})"


@contextmanager
def _private_file(size_bytes: int) -> Iterator[tuple[BinaryIO, Path]]:
    """A file that only this process has, and a name that opens it. What is large goes to the disk, not into memory."""
    if not Path("/dev/fd").exists():
        with tempfile.TemporaryDirectory(prefix="cappy-") as folder, (Path(folder) / "copy").open("w+b", 0) as named:
            yield named, Path(named.name)
        return
    with ExitStack() as stack:
        if size_bytes <= _MOST_IN_MEMORY and hasattr(os, "memfd_create"):
            file: BinaryIO = stack.enter_context(os.fdopen(os.memfd_create("cappy-bundle"), "w+b", buffering=0))
        else:
            file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
        yield file, Path("/dev/fd") / str(file.fileno())


def is_bundle(folder: Path) -> bool:
    """Whether a folder is meant to be one: runs, pairs and others have a manifest, too."""
    return all((folder / name).is_file() for name in (MANIFEST, MODEL))


def load_bundle(path: Path | str) -> Bundle:
    """Read a bundle folder's manifest; its files are verified as they are read (`Bundle.read`).

    Raises:
        BundleNotFound: there is no such folder, or it has no manifest.
        BundleFormatError: the manifest is newer than this version, or malformed.
        BundleDamaged: a file is missing.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BundleNotFound(f"no bundle at {str(folder)!r}: a bundle is a folder with {MANIFEST}")
    if not (folder / MANIFEST).is_file():
        holds_checkpoint = (folder / "config.json").is_file()
        hint = f"; it holds a checkpoint: `cappy export {folder} OUT` makes a bundle of it" if holds_checkpoint else ""
        raise BundleNotFound(f"the folder {str(folder)!r} is no bundle: it has no {MANIFEST}{hint}")
    try:
        with (folder / MANIFEST).open("rb") as file:
            raw = file.read(_MOST_READ)
        content = json.loads(raw)
    except (ValueError, OSError, RecursionError) as error:
        raise BundleFormatError(f"{folder / MANIFEST} can't be read as JSON: {error}") from error
    manifest = _manifest(content, folder / MANIFEST)
    for name in manifest.files:
        if not (folder / name).is_file():
            raise BundleDamaged(f"{folder / name} is missing: fetch or export the bundle again")
    return Bundle(folder, manifest, hashlib.sha256(raw).hexdigest())


def _manifest(content: Any, path: Path) -> Manifest:
    found = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise BundleFormatError(
            f"{path} has bundle format {found}, this cappy-select reads up to {FORMAT_VERSION}: "
            "upgrade cappy-select, or export the checkpoint again"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise BundleFormatError(f"{path} is malformed: {validation_message(error)}") from error
    if set(manifest.files) != {MODEL, TOKENIZER}:
        raise BundleFormatError(f"{path} must list {MODEL} and {TOKENIZER}, it lists {sorted(manifest.files)}")
    return manifest


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size_bytes=file.tell())


def draft_bundle(folder: Path, fields: Mapping[str, Any]) -> Bundle:
    """The bundle a folder with a model and a tokenizer would be; nothing is written, so it can still be refused."""
    files = {name: _record(folder / name) for name in (MODEL, TOKENIZER)}
    return Bundle(folder, Manifest(files=files, **fields), digest="")


def save_bundle(folder: Path, fields: Mapping[str, Any]) -> Bundle:
    """Complete a folder that holds the model and the tokenizer: write its manifest, last."""
    manifest = draft_bundle(folder, fields).manifest
    partial = folder / f"{MANIFEST}.partial"
    partial.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST)
    return load_bundle(folder)


@contextmanager
def new_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A scratch folder beside `out` that becomes `out` when the block ends well, and vanishes when not.

    Only a bundle, or an empty folder, is ever replaced. Raises InputError when `out` holds anything else, is
    a bundle and `overwrite` is false, or can't be written.
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


def resolve(source: str | Path | None, *, revision: str | None = None) -> Bundle:
    """The bundle behind a source.

    Args:
        source: None for the embedded default; a folder; or `hf://org/name`. An existing path wins over
            every other reading.
        revision: Branch, tag or commit of a hub repository.

    A hub *checkpoint* is exported once (fp32), cached by commit; that needs the
    `export` extra.
    """
    if source is None:
        return load_bundle(EMBEDDED)
    if Path(source).exists() or not str(source).startswith("hf://"):
        if revision is not None:
            raise InputError(f"revision={revision!r} is for hub ids (hf://org/name), got the path {str(source)!r}")
        if not Path(source).exists():
            raise BundleNotFound(
                f"no bundle at {str(source)!r}: it is not a folder, and a hub id is written hf://org/name"
            )
        return load_bundle(source)
    return _from_hub(str(source), revision)


def _from_hub(source: str, revision: str | None) -> Bundle:
    from cappy_select import hub

    repo = hub.repo_id(source)
    snapshot = hub.fetch(repo, revision, [MANIFEST, "config.json"])
    if (snapshot.path / MANIFEST).exists():
        return load_bundle(hub.fetch(repo, snapshot.commit, [MANIFEST, MODEL, TOKENIZER]).path)
    if not (snapshot.path / "config.json").exists():
        raise BundleNotFound(f"{source} is neither a bundle ({MANIFEST}) nor a checkpoint (config.json)")
    name = f"{repo.replace('/', '--')}@{snapshot.commit[:12]}-fp32-v{FORMAT_VERSION}"
    exported = hub.cache_folder() / "exports" / name
    with hub.locked(exported):  # several workers start at once, and one export is enough
        if not (exported / MANIFEST).is_file():
            # The one import that points down the list of DESIGN: a checkpoint becomes a bundle where bundles
            # are resolved, so that every caller of `Scorer.load` gets it.
            from cappy_select.export import export_checkpoint

            export_checkpoint(source, exported, revision=snapshot.commit)
    return load_bundle(exported)

"""The bundle: a scorer on disk, where the offline and the online line meet.

A folder of `manifest.json`, `model.onnx` and `tokenizer.json`. The manifest is written last and holds the
SHA-256 of the other files, so a folder with a manifest is a whole bundle, and what is loaded is what was
measured when it was made.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from cappy_select.bundle.manifest import FORMAT_VERSION, MANIFEST, MODEL, TOKENIZER, Manifest
from cappy_select.core.errors import (
    BundleDamaged,
    BundleError,
    BundleFormatError,
    BundleNotFound,
    validation_message,
)

_MOST_READ = 64 * 2**20  # bytes of a manifest or a tokenizer; the largest published tokenizers have half of it
_MOST_IN_MEMORY = 256 * 2**20  # bytes of a model's verified copy
_CHUNK = 2**20
EMBEDDED = Path(__file__).parent.parent / "bundles" / "cappy-mini"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are there.

    Attributes:
        path: Its folder.
        manifest: What it says of itself.
        digest: SHA-256 of the manifest, which holds those of the files: identifies the exact content.
    """

    path: Path
    manifest: Manifest
    digest: str

    @property
    def is_embedded(self) -> bool:
        """Whether it lies among the library's own code, and is trusted as that is."""
        return self.path == EMBEDDED

    def read(self, name: str) -> bytes:
        """A small file's content, verified against the manifest: what is hashed is what is used.

        Args:
            name: A file of the manifest, such as `tokenizer.json`; of at most 64 MiB.

        Returns:
            The content.

        Raises:
            BundleDamaged: the file can't be read, or is not what the manifest describes.
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
        lists) is found beside it. A name, because onnxruntime needs half the memory for a file that it does for bytes:
        1.8 against 4.1 GB for RoBERTa-large. The embedded bundle is hashed and not copied.

        Args:
            name: A file of the manifest, such as `model.onnx`.

        Yields:
            The name, which is good until the block ends.

        Raises:
            BundleDamaged: the file can't be read, or is not what the manifest describes.
            BundleError: there is no room for the copy.
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
    """Whether a folder is meant to be one: runs, pairs and others have a manifest, too.

    Args:
        folder: Any path; it need not exist.

    Returns:
        True when it has a manifest and a model. Neither is read: `load_bundle` says whether they can be used.
    """
    return all((folder / name).is_file() for name in (MANIFEST, MODEL))


def load_bundle(path: Path | str) -> Bundle:
    """Read a bundle folder's manifest; its files are verified as they are read (`Bundle.read`).

    Args:
        path: The folder.

    Returns:
        The bundle, whose files are all there.

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

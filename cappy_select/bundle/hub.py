"""Fetching files from a Hugging Face hub, and where this library keeps what it makes from them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cappy_select.core.errors import BundleNotFound

_logger = logging.getLogger(__name__)

PREFIX = "hf://"
# What a checkpoint's tokenizer may be in.
SENTENCEPIECE_FILES = frozenset({"spm.model", "sentencepiece.bpe.model"})
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", *sorted(SENTENCEPIECE_FILES),
)  # fmt: skip
CROSS_ENCODER_FILE = "config_sentence_transformers.json"


class Snapshot(NamedTuple):
    """Files of one repository at one commit, on this disk."""

    path: Path
    commit: str


def cache_folder() -> Path:
    """Where exported checkpoints are kept: `CAPPY_CACHE`, or the platform's cache folder.

    Returns:
        The folder, which may not exist yet.
    """
    from platformdirs import user_cache_path

    named = os.environ.get("CAPPY_CACHE")
    return Path(named) if named else user_cache_path("cappy-select")


def repo_id(source: str) -> str:
    """The `org/name` of an `hf://org/name`. Raises BundleNotFound when it is not one."""
    name = source.removeprefix(PREFIX)
    if name.count("/") != 1 or not all(name.split("/")):
        raise BundleNotFound(f"a hub id is written hf://org/name, got {source!r}")
    return name


def fetch(repo: str, revision: str | None, patterns: Sequence[str]) -> Snapshot:
    """The files of a hub repository that match the patterns; from the local cache when the hub is away.

    Args:
        repo: `org/name`.
        revision: Branch, tag or commit; None for the default branch.
        patterns: File names or globs.

    Raises BundleNotFound when the repository or revision does not exist, or can be had neither from the hub
    nor from the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    where = f"hub repository {repo!r}" + (f" at revision {revision!r}" if revision else "")
    _logger.info("%s: looked for, and downloaded if it is not in the hub's cache", where)
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except LocalEntryNotFoundError as error:
        raise BundleNotFound(
            f"{where} is not in the local cache, and the hub can't be reached: {_line(error)}"
        ) from error
    except Exception as error:  # the hub library passes on what its HTTP layer raises, of changing kinds
        raise BundleNotFound(
            f"{where} can't be fetched: {_line(error)} (check the name; a private one needs HF_TOKEN)"
        ) from error
    _logger.info("%s: commit %s is in the hub's cache", where, folder.name)
    return Snapshot(folder, folder.name)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file beside `path`, among processes. Raises BundleNotFound when the cache can't be written."""
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        lock.acquire()
    except OSError as error:
        raise BundleNotFound(f"the cache {str(path.parent)!r} can't be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

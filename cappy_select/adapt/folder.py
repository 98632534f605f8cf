"""An adaptation's folder: what it is made of, and how far it is.

OUT/adapt.json              config, input files by hash, what was sampled, the result
OUT/examples/train.jsonl    instances to learn from
OUT/examples/held_out.jsonl instances that only the report sees
OUT/samples.db              the LLMs' answers to both
OUT/pairs/                  scored pairs of the training instances
OUT/training/               the trainer's run
OUT/bundle/                 the adapted scorer
OUT/report/                 what it is worth; picks.jsonl has what each way picked, instance by instance
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cappy_select.adapt.config import AdaptConfig
from cappy_select.core.errors import InputError
from cappy_select.core.files import disk_errors, scratch_of, write_json
from cappy_select.core.json_text import loads
from cappy_select.data.folder import hashed
from cappy_select.data.formats import is_rows
from cappy_select.data.store import SampleStore
from cappy_select.data.store_file import holds_nothing

STATE = "adapt.json"
TRAIN, HELD_OUT = Path("examples/train.jsonl"), Path("examples/held_out.jsonl")
PICKS = Path("report/picks.jsonl")
STORE, PAIRS, TRAINING, BUNDLE, REPORT, BASE = "samples.db", "pairs", "training", "bundle", "report", "base"
_FORMAT = 1


class Folder:
    """The folder of one adaptation, taken for it or taken up again."""

    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        self.path, self.state = path, state

    def __truediv__(self, name: str | Path) -> Path:
        return self.path / name

    def note(self, **facts: Any) -> None:
        """Keep what is known now; all of it or none."""
        self.state |= facts
        with disk_errors(self.path):
            write_json(self.path / STATE, self.state)


# What can change until the last sample is there: it has no part in what is asked.
_FREE_MEANWHILE = frozenset(
    {"label", "references", "augmentation", "validation", "scorer", "revision", "epochs", "settings", "precision"}
)


@contextmanager
def opened(
    out: Path,
    config: AdaptConfig,
    instances: Sequence[str | Path],
    recorded: Sequence[str | Path],
    rest: Mapping[str, Any],
) -> Iterator[Folder]:
    """The folder, for one process at a time.

    Raises InputError when it holds something else or another adaptation, DataError when it can't be written.
    """
    asked = asked_of(config, instances, recorded, rest)
    state_of(out, asked)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock").acquire(timeout=0):
            folder = Folder(out, state_of(out, asked) or {"taken_in": False, "sampled": None, "result": None})
            if folder.state["sampled"] is None:
                if not _has_asked(out):  # nothing was paid for: what was begun in another way is begun anew
                    for behind in ("", "-wal", "-shm", "-journal", ".lock"):  # SQLite's, and the store's own
                        (out / f"{STORE}{behind}").unlink(missing_ok=True)
                    folder.state["taken_in"] = False
                folder.note(**asked)
            yield folder
    except Timeout as error:
        raise InputError(f"another process is adapting in {out}") from error


def asked_of(
    config: AdaptConfig, instances: Sequence[str | Path], recorded: Sequence[str | Path], rest: Mapping[str, Any]
) -> dict[str, Any]:
    """What an adaptation is made of, for its state."""
    return {
        "format": _FORMAT,
        "config": config.model_dump(mode="json"),
        "examples": [hashed(path) for path in instances],  # the name in the file is older than the word
        "recorded": [_digest(path) for path in recorded],
        **rest,
    }


def state_of(out: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """How far the folder is; None when nothing is begun. Raises InputError when it holds something else."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: an adaptation has a folder")
    if not (out / STATE).is_file():
        if out.is_dir() and any(path.name not in {".lock", scratch_of(Path(STATE)).name} for path in out.iterdir()):
            raise InputError(f"{out} is not empty and holds no adaptation: give another folder")
        return None
    try:
        state: dict[str, Any] = loads((out / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{out / STATE} can't be read: {error}") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise InputError(f"{out / STATE} is no adaptation of format {_FORMAT}")
    _check_same(out, state, asked)
    return state


def _has_asked(out: Path) -> bool:
    """Whether the store has answers that were asked for here."""
    if holds_nothing(out / STORE):
        return False
    with SampleStore(out / STORE) as store:
        return store.asked() > 0


_SAID = {"examples": "instances"}


def _check_same(out: Path, state: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    free: frozenset[str] = frozenset()
    if state["sampled"] is None:
        if not _has_asked(out):
            return
        free = _FREE_MEANWHILE
    was, now = state["config"], asked["config"]
    changed = [
        f"{key} is {was.get(key)!r} there and {now[key]!r} here"
        for key in now
        if was.get(key) != now[key] and key not in free
    ]
    changed += [
        f"{_SAID.get(key, key)} are others" for key in asked if key != "config" and state.get(key) != asked[key]
    ]
    if changed:
        raise InputError(
            f"{out} holds another adaptation: {changed[0]}{f', and {len(changed) - 1} more' if changed[1:] else ''}; "
            f"give another folder (--recorded {out / STORE} takes the answers along)"
        )


def _digest(path: str | Path) -> dict[str, Any]:
    if is_rows(path):
        return hashed(path)
    with SampleStore(path) as store:
        return {"name": Path(path).name, "sha256": store.digest()}

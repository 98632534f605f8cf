"""A run's folder: whose it is, what was run there, and what it says of itself meanwhile.

OUT/run.json          what is run, on what, and, once there is one, the result
OUT/log.jsonl         an object an update: loss, learning rate, gradient norm, tokens/s, MFU, evaluation
OUT/tensorboard/      the same for TensorBoard
OUT/pairs/            the pairs, when they were made of a file of instances
OUT/tokens/           the pairs as tokens
OUT/checkpoints/      the last states and the best weights; a run that was stopped goes on from them
OUT/model/            the trained scorer as a Hugging Face checkpoint
OUT/bundle/           the same as a bundle
OUT/training.png      loss and selection accuracy
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax

from cappy_select.core.errors import InputError, MissingExtra
from cappy_select.core.files import disk_errors, scratch_of, write_json, write_whole
from cappy_select.core.json_text import loads
from cappy_select.train.config import TrainConfig
from cappy_select.train.evaluation import Evaluation

RUN = "run.json"
LOG = "log.jsonl"
_OWN = frozenset({".lock", scratch_of(Path(RUN)).name})  # of a run that was killed before it was one
# What may be another when a run goes on: how it is computed, not what. (The last digits of sums differ then, and with
# dropout what is dropped.) Pairs and checkpoint are compared by content.
_FREE = frozenset(
    {
        *("micro_tokens", "remat", "save_every", "fsdp", "peak_tflops", "max_minutes"),
        *("bundle", "pairs", "checkpoint", "revision"),
    }
)
_PACKAGES = ("cappy-select", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers")


class Update(NamedTuple):
    """What there is to say after an update; `step` 0 is before the first one, and has an evaluation only."""

    step: int  # the number of the update; the log has it under this name
    loss: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    mfu: float | None = None
    evaluation: Evaluation | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Real tokens, no padding; over all devices."""
        return self.tokens / self.seconds if self.tokens and self.seconds else None

    def as_json(self) -> dict[str, Any]:
        """A row of the log."""
        row = {name: value for name, value in self._asdict().items() if value is not None}
        if self.evaluation is not None:
            row["evaluation"] = self.evaluation._asdict()
        return row | ({"tokens_per_s": self.tokens_per_s} if self.tokens_per_s else {})

    @classmethod
    def of_json(cls, row: Mapping[str, Any]) -> Self:
        """What `as_json` gave."""
        known = {name: row[name] for name in cls._fields if name in row}
        if "evaluation" in known:
            known["evaluation"] = Evaluation(**known["evaluation"])
        return cls(**known)


def claim(out: Path, config: TrainConfig, start: Mapping[str, Any], *, resume: bool) -> dict[str, Any]:
    """Take a folder for a run, or take one up again: what its run.json says.

    Args:
        out: The folder.
        config: The run's.
        start: What it starts from, by name and by content.
        resume: Whether a run that is there may be gone on with; one that kept nothing yet is begun anew in any case.

    Raises InputError when the folder holds something else, or this run and nobody said to go on, or another one.
    """
    asked = config.model_dump(mode="json")
    if (out / RUN).is_file():
        begun = read_run(out)
        if begun["result"] is not None or _has_checkpoint(out):
            if not resume:
                raise InputError(f"{out} holds a run: --resume goes on with it; or give another folder")
            _check_same(out, begun, asked, start)
            return begun | {"config": asked}
    elif out.exists() and (not out.is_dir() or any(path.name not in _OWN for path in out.iterdir())):
        raise InputError(f"{out} is not empty and holds no run: give another folder")
    begun = {
        "config": asked,
        "start": dict(start),
        "data": None,
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "git_commit": _commit(),
        "hardware": {
            "devices": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
            "processes": jax.process_count(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
        "result": None,
    }
    if jax.process_index() == 0:
        write_run(out, begun)
    return begun


def owner_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run the one it is, and nothing that may change when it goes on: its configuration, its start, its
    pairs. A checkpoint has it with it."""
    settings = {f"config.{key}": value for key, value in run["config"].items() if key not in _FREE}
    return settings | {"start": run["start"]["sha256"], "pairs": run["data"]["fingerprint"]}


def _has_checkpoint(out: Path) -> bool:
    kept = out / "checkpoints" / "last"
    return kept.is_dir() and any(folder.name.isdigit() for folder in kept.iterdir())


def _check_same(out: Path, begun: Mapping[str, Any], asked: Mapping[str, Any], start: Mapping[str, Any]) -> None:
    other = [key for key in asked if begun["config"].get(key) != asked[key] and key not in _FREE]
    if other:
        was, now = begun["config"].get(other[0]), asked[other[0]]
        raise InputError(
            f"{out} holds a run with another configuration: {other[0]} is {was!r} there and {now!r} here"
            + (f", and {len(other) - 1} more" if other[1:] else "")
            + "; give another folder, or the same configuration"
        )
    if begun["start"]["sha256"] != start["sha256"]:
        raise InputError(
            f"{out} holds a run that started from another checkpoint than {start['checkpoint']} is now: give another "
            "folder, or that checkpoint"
        )


def read_run(out: Path) -> dict[str, Any]:
    """A run's run.json. Raises InputError."""
    try:
        found = loads((out / RUN).read_text(encoding="utf-8"))
        return {
            name: found[name] for name in ("config", "start", "data", "versions", "git_commit", "hardware", "result")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{out / RUN} can't be read as a run: {error!r}") from error


def write_run(out: Path, run: Mapping[str, Any]) -> None:
    """Replace run.json. Raises DataError."""
    with disk_errors(out):
        write_json(out / RUN, run)


def _commit() -> str | None:
    """The commit of the folder that the run is started from, `+` behind it when files differ; None without git."""
    try:
        asked = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None


def read_log(out: Path, until: int | None = None) -> list[Update]:
    """The rows of a run's log; up to an update. A line that a kill cut off is left out."""
    rows = []
    if (out / LOG).is_file():
        for line in (out / LOG).read_text(encoding="utf-8").splitlines():
            try:
                update = Update.of_json(loads(line))
            except (ValueError, TypeError):
                continue
            if until is None or update.step <= until:
                rows.append(update)
    return rows


class Log:
    """log.jsonl, TensorBoard, and Weights & Biases when a project is named; the first process writes.

    Args:
        out: The run's folder.
        until: The update that the run goes on from: what was said of later ones is taken back. -1: of all.
        wandb: The project's name.
        config: What W&B shows beside the run.

    Raises MissingExtra when W&B is asked for and not installed.
    """

    def __init__(self, out: Path, until: int, wandb: str | None, config: TrainConfig) -> None:
        self.updates = read_log(out, until)
        self.evaluations = {row.step: row.evaluation for row in self.updates if row.evaluation is not None}
        self._out = out
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        from tensorboardX import SummaryWriter

        with disk_errors(out):
            write_whole(out / LOG, "".join(f"{json.dumps(row.as_json())}\n" for row in self.updates))
            self._file = (out / LOG).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=until + 1, flush_secs=10)
        self._wandb = _wandb_run(out, wandb, config) if wandb else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._writes:
            return
        self._file.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def add(self, update: Update) -> Update:
        """Write it down. Raises DataError."""
        self.updates.append(update)
        if update.evaluation is not None:
            self.evaluations[update.step] = update.evaluation
        if not self._writes:
            return update
        row = update.as_json()
        evaluation = {f"validation_{name}": value for name, value in row.pop("evaluation", {}).items()}
        figures = {name: value for name, value in (row | evaluation).items() if name != "step" and value is not None}
        with disk_errors(self._out):
            self._file.write(json.dumps(update.as_json()) + "\n")
            self._file.flush()
            for name, value in figures.items():
                self._board.add_scalar(name, value, update.step)
        if self._wandb is not None:
            self._wandb.log(figures, step=update.step)
        return update


def wandb_module() -> Any:
    """Weights & Biases. Raises MissingExtra."""
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise MissingExtra("wandb", "--wandb", "wandb") from error
    return wandb


def _wandb_run(out: Path, project: str, config: TrainConfig) -> Any:
    try:
        return wandb_module().init(project=project, name=out.name, dir=str(out), config=config.model_dump(mode="json"))
    except MissingExtra:
        raise
    except Exception as error:  # its own errors, and those of its network
        raise InputError(f"--wandb {project}: {' '.join(str(error).split())[:200]}") from error

"""A whole training run: pairs -> tokens -> weights -> checkpoint -> bundle."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from filelock import FileLock, Timeout

from cappy_select.core.errors import InputError
from cappy_select.core.files import disk_errors, whole_folder
from cappy_select.data.build import build
from cappy_select.data.folder import damaged_file, read_manifest
from cappy_select.data.shards import count_pairs, shards_of
from cappy_select.export import Card, export_checkpoint, require_export
from cappy_select.train.config import TrainConfig
from cappy_select.train.loop import Fit, fit
from cappy_select.train.mesh import mesh_of
from cappy_select.train.plot import plot_training
from cappy_select.train.run import Update, claim, owner_of, read_log, wandb_module, write_run
from cappy_select.train.runtime import in_turn
from cappy_select.train.start import Start, starting_point
from cappy_select.train.tokens import TokenSet, tokenised
from cappy_select.train.weights import write_checkpoint

PAIRS = "pairs"
MODEL = "model"
BUNDLE = "bundle"


class Result(NamedTuple):
    """How a run ended: what run.json says, all that was logged, updates made, and the signal that stopped it."""

    run: dict[str, Any]
    updates: list[Update]
    done: int
    signal: int | None


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    wandb: str | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_tokens: Callable[[int, int], None] = lambda done, total: None,
    on_update: Callable[[Update], None] = lambda update: None,
) -> Result:
    """Train a scorer; the folder `out` then holds what `cappy_select.train.run` lists.

    The weights are those of the look at the validation pairs with the best selection accuracy (the first look is before
    the first update); without validation pairs they are the last ones.

    SIGTERM and SIGINT end the training itself between two micro-batches, with a checkpoint. Whatever is raised, what is
    in the folder then is gone on from.

    Args:
        config: What to train, on what.
        out: The run's folder. With several processes all of them must see it.
        resume: Go on with the run that is there, bit by bit as if it had never stopped; without one, begin.
        wandb: A project of Weights & Biases to tell, too.
        on_stage: Called with a few words before each long stage, and when there is something to know.
        on_tokens: Called while pairs are tokenised: with pairs done now, and pairs in all.
        on_update: Called after each update, and each look.

    Returns:
        How the run ended: what run.json says, all that was logged, the updates made, and the signal that stopped it
        (None when none did). A run that is finished already is returned as it is.

    Raises:
        InputError: there are no such pairs, or they, the checkpoint or the folder don't fit the configuration.
        BundleNotFound: there is no such checkpoint.
        MissingExtra: a package that this run needs is not installed.
        ExportError: the trained weights can't become a bundle.
        DataError: the disk is full.
    """
    out = Path(out)
    if config.bundle is not None:
        require_export()
    if wandb is not None:
        wandb_module()
    mesh_of(config.fsdp)
    if not Path(config.pairs).exists():
        raise InputError(f"no pairs at {config.pairs}: name a folder made by `cappy build`, or a file of instances")
    if Path(config.pairs).is_dir():
        _data(config, Path(config.pairs))
    start = starting_point(config)
    with _alone(out):
        facts = start.facts(config)
        begun = in_turn(lambda: claim(out, config, facts, resume=resume or jax.process_index() > 0))
        if begun["result"] is not None:
            on_stage(f"{out} holds this run, finished")
            if jax.process_index() == 0:
                _bundle(config, begun, out, on_stage)
            return Result(begun, read_log(out), config.updates, None)
        pairs = in_turn(lambda: _pairs(config, out, on_stage))
        data = _data(config, pairs)
        # A run of an earlier version has no hash of the shards.
        if begun["data"] is not None and begun["data"] != {name: data[name] for name in begun["data"] if name in data}:
            raise InputError(f"{out} holds a run on other pairs than {config.pairs} has now: give another folder")
        begun["data"] = data
        in_turn(lambda: write_run(out, begun) if jax.process_index() == 0 else None)
        train_side, validation_side = _tokens(config, start, pairs, data["rows"], out, on_stage, on_tokens)
        fitted = fit(
            config,
            start,
            train_side,
            validation_side,
            out,
            owner=owner_of(begun),
            wandb=wandb,
            on_stage=on_stage,
            on_update=on_update,
        )
        if fitted.weights is None or jax.process_index() > 0:
            return Result(begun, fitted.updates, fitted.done, fitted.signal)
        _finish(config, start, fitted, begun, out, on_stage)
        return Result(begun, fitted.updates, fitted.done, None)


def _pairs(config: TrainConfig, out: Path, on_stage: Callable[[str], None]) -> Path:
    """The folder of pairs; made of a file of instances first."""
    given = Path(config.pairs)
    if given.is_dir():
        return given
    on_stage(f"making pairs of {given.name}")
    build([given], out / PAIRS, workers=1, overwrite=True)
    return out / PAIRS


def _data(config: TrainConfig, pairs: Path) -> dict[str, Any]:
    """Which pairs they are, for run.json. Raises InputError when they are not whole, or can't be trained on."""
    manifest = read_manifest(pairs)
    try:
        rows = {side: int(manifest["rows"][side]["rows"]) for side in ("train", "validation")}
        tasks = len(manifest["rows"]["train"]["tasks"])
        content = hashlib.sha256("".join(shard["sha256"] for shard in shards_of(pairs)).encode()).hexdigest()
        damaged = damaged_file(pairs, manifest)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the manifest of {pairs} lacks {error}: build the pairs again") from error
    if damaged is not None:
        raise InputError(f"{damaged} is missing or damaged: build the pairs again")
    for side, said in rows.items():
        there = count_pairs([pairs / shard["name"] for shard in shards_of(pairs, side)])
        if there != said:
            raise InputError(f"{pairs} has {there} {side} pairs, its manifest says {said}: build the pairs again")
    if not rows["train"]:
        raise InputError(f"{config.pairs} has no training pairs")
    if config.patience is not None and not rows["validation"]:
        raise InputError(f"patience={config.patience} needs validation pairs, and {config.pairs} has none")
    return {"fingerprint": manifest["fingerprint"], "rows": rows, "tasks": tasks, "sha256": content}


def _tokens(
    config: TrainConfig,
    start: Start,
    pairs: Path,
    rows: dict[str, int],
    out: Path,
    on_stage: Callable[[str], None],
    on_tokens: Callable[[int, int], None],
) -> tuple[TokenSet, TokenSet | None]:
    def tokens_of(side: str) -> TokenSet:
        made = tokenised(pairs, side, start.encoder, start.tokenizer_sha256, out / "tokens", on_tokens)
        if made.cut:
            on_stage(f"{made.cut} of {len(made)} {side} pairs are longer than {config.window} tokens: they are cut")
        return made

    on_stage("tokenising the pairs")
    train_side = in_turn(partial(tokens_of, "train"))
    return train_side, in_turn(partial(tokens_of, "validation")) if rows["validation"] else None


def _finish(
    config: TrainConfig, start: Start, fitted: Fit, begun: dict[str, Any], out: Path, on_stage: Callable[[str], None]
) -> None:
    """Write the checkpoint, the plot, the result and the bundle."""
    result = _result(config, fitted)
    with disk_errors(out):
        with whole_folder(out / MODEL) as scratch:
            write_checkpoint(scratch, start.folder, start.shape, fitted.weights or {}, start.tokenizer)
        plot_training(fitted.updates, fitted.best, out / "training.png")
    begun["result"] = result
    write_run(out, begun)
    _bundle(config, begun, out, on_stage)


def _bundle(config: TrainConfig, run: dict[str, Any], out: Path, on_stage: Callable[[str], None]) -> None:
    """Make the bundle that is asked for, when it is not there."""
    made = run["result"].get("bundle", {})
    if config.bundle is None or made.get("precision") == config.bundle:
        return
    card = Card(name=out.resolve().name, provenance={"training": _provenance(run)})
    bundle = export_checkpoint(
        out / MODEL, out / BUNDLE, precision=config.bundle, card=card, overwrite=True, on_stage=on_stage
    )
    run["result"]["bundle"] = {"precision": config.bundle, "digest": bundle.digest, "gates": bundle.manifest.gates}
    write_run(out, run)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One run at a time in a folder; the processes of one run share it."""
    if jax.process_index() > 0:
        yield
        return
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: a run has a folder")
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock").acquire(timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"another process is training in {out}") from error


def _result(config: TrainConfig, fitted: Fit) -> dict[str, Any]:
    evaluations = {update.step: update.evaluation for update in fitted.updates if update.evaluation is not None}
    made = [update for update in fitted.updates if update.loss is not None]
    speeds = [update.tokens_per_s for update in made if update.tokens_per_s is not None]
    mfus = [update.mfu for update in made if update.mfu is not None]
    return {
        "updates": fitted.done,
        "stopped_early": fitted.done < config.updates,
        "best_update": fitted.best,
        "before": evaluations[0]._asdict() if 0 in evaluations else None,
        "validation": evaluations[fitted.best]._asdict() if fitted.best in evaluations else None,
        "last_loss": made[-1].loss if made else None,
        "seconds": round(sum(update.seconds or 0 for update in made), 1),
        "tokens": sum(update.tokens or 0 for update in made),
        # Medians: the first update of each shape has its compilation in it.
        "tokens_per_s": round(statistics.median(speeds), 1) if speeds else None,
        "mfu": statistics.median(mfus) if mfus else None,
    }


def _provenance(run: dict[str, Any]) -> dict[str, Any]:
    """For the manifest: no paths of this machine."""
    left_out = {"pairs", "checkpoint", "revision", "micro_tokens", "peak_tflops", "fsdp"}
    return {
        "start": run["start"],
        "pairs": run["data"],
        "config": {key: value for key, value in run["config"].items() if key not in left_out},
        "best_update": run["result"]["best_update"],
        "validation": run["result"]["validation"],
        "versions": run["versions"],
    }

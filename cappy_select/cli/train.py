"""`cappy train`: a scorer of pairs."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cappy_select.cli.output import Json, new_app, note, print_json, progress
from cappy_select.core.errors import InputError

if TYPE_CHECKING:
    from cappy_select.train.run import Update  # imports JAX

app = new_app()


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A Python file with get_config(), such as recipes/smoke.py.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE: change the recipe's configuration; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder; default: runs/RECIPE.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is in the folder; without one, begin.")
    ] = False,
    wandb: Annotated[str | None, typer.Option(help="A project of Weights & Biases to report to.")] = None,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="One of several processes, as a TPU pod, Slurm or Open MPI says.")
    ] = False,
    coordinator: Annotated[
        str | None, typer.Option(help="HOST:PORT of process 0, where nothing else says who the processes are.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="How many processes there are.")] = None,
    process: Annotated[int | None, typer.Option(min=0, help="Which of them this is, from 0.")] = None,
    json: Json = False,
) -> None:
    """Train a scorer on pairs: a checkpoint, a bundle, and a record of the run.

    SIGTERM and Ctrl-C keep a checkpoint; the exit code is then 143 or 130, and --resume goes on.
    """
    named = [coordinator, processes, process]
    if any(each is not None for each in named) and None in named:
        raise InputError("--coordinator, --processes and --process go together")
    from cappy_select.train.job import BUNDLE, MODEL
    from cappy_select.train.job import train as run_training
    from cappy_select.train.recipe import load_recipe
    from cappy_select.train.runtime import join_processes, keep_compiled

    hush_threads()
    keep_compiled()
    if distributed or coordinator is not None:
        join_processes(coordinator, processes, process)
    config = load_recipe(recipe, set_ or ())
    out = out or Path("runs") / recipe.stem
    with progress("tokenising", shown=not json) as tokenised, progress("training", shown=not json) as trained:
        seen = 0

        def on_update(update: Update) -> None:
            nonlocal seen
            trained(update.step - seen, config.updates, _figures(update))
            seen = update.step
            if update.evaluation is not None and not json and not sys.stderr.isatty():
                note(f"update {update.step} of {config.updates}: {_figures(update)}")  # a log has no bar

        result = run_training(
            config,
            out,
            resume=resume,
            wandb=wandb,
            on_stage=(lambda stage: None) if json else note,
            on_tokens=lambda done, total: tokenised(done, total),
            on_update=on_update,
        )
    if result.signal is not None:
        note(f"stopped after update {result.done}, with a checkpoint: --resume goes on")
        raise typer.Exit(128 + result.signal)
    if json:
        print_json(result.run)
        return
    made = result.run["result"]
    if made is None:
        return  # not the first of several processes
    early = ", stopped early" if made["stopped_early"] else ""
    speed = f", {made['tokens_per_s']:,.0f} tokens/s" if made["tokens_per_s"] else ""
    print(f"{out}: {made['updates']} updates in {made['seconds']:.0f} s{early}{speed}")
    if made["before"] is not None and made["validation"] is not None:
        before, after = made["before"], made["validation"]
        for name, factor, unit in (("accuracy", 100, " %"), ("loss", 1, "")):
            if after[name] is not None:
                words = "selection accuracy" if name == "accuracy" else "squared error"
                chance = f" (chance {100 * after['chance']:.1f} %)" if name == "accuracy" else ""
                print(
                    f"validation {words}: {before[name] * factor:.4g}{unit} -> {after[name] * factor:.4g}{unit}{chance}"
                )
        if made["best_update"] == 0:
            note("no look was better than the one before the first update: the weights are those it started from")
    print(f"checkpoint: {out / MODEL}")
    if "bundle" in made:
        print(f'bundle: {out / BUNDLE}   (cappy rank --scorer {out / BUNDLE} "…" …)')


def hush_threads() -> None:
    """Threads that write checkpoints print what fails in them at length, and the main one raises it as well; warnings
    are a line without the code."""
    if not os.environ.get("CAPPY_TRACEBACK"):
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        threading.excepthook = lambda args: None
        sys.unraisablehook = lambda args: None
        warnings.showwarning = lambda message, *rest: note(str(message))
        sys.excepthook = lambda *args: None  # tensorstore's callbacks use it; `main` catches what is ours


def _figures(update: Update) -> str:
    values = []
    if update.loss is not None:
        values.append(f"loss {update.loss:.4f}")
    if update.tokens_per_s is not None:
        values.append(f"{update.tokens_per_s:,.0f} tokens/s")
    if update.mfu is not None:
        values.append(f"MFU {100 * update.mfu:.0f} %")
    if update.evaluation is not None:
        values.append(f"validation loss {update.evaluation.loss:.4f}")
        if update.evaluation.accuracy is not None:
            values.append(f"accuracy {100 * update.evaluation.accuracy:.1f} %")
    return " · ".join(values)

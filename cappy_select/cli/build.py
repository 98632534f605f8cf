"""`cappy build`: scored pairs of instances and samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cappy_select.cli.output import (
    Json,
    Revision,
    ScorerSource,
    new_app,
    note,
    print_json,
    print_table,
    progress,
)
from cappy_select.core.errors import InputError
from cappy_select.core.json_text import loads
from cappy_select.data.build import ADAPT_ROWS
from cappy_select.data.build import build as build_pairs
from cappy_select.data.folder import LEFT_OUT
from cappy_select.data.instances import named_fields
from cappy_select.data.labels import LABELS

app = new_app()


@app.command()
def build(
    instances: Annotated[list[str], typer.Argument(help="Instances: JSONL, JSON, CSV, TSV (also .gz) or Parquet.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The folder to make.")],
    recorded: Annotated[
        list[str] | None, typer.Option(help="A sample store, or a file of recorded samples; may be repeated.")
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="pretrain: as the paper's section 3.2. adapt: as its repository adapts to a task; sampled answers "
            f"to questions with choices count too, and each task is repeated or cut to {ADAPT_ROWS:,} rows."
        ),
    ] = "pretrain",
    label: Annotated[
        str,
        typer.Option(
            help=f"What says how right a sampled answer is: {', '.join(LABELS)}, call:MODULE:FUNCTION, "
            "judge:MODEL (after `cappy data judge`)."
        ),
    ] = "rouge_l",
    mismatches: Annotated[
        int, typer.Option(help="Wrong answers from other questions, for each reference of a question without choices.")
    ] = 1,
    sampled_only: Annotated[
        bool, typer.Option("--sampled-only", help="Pairs of sampled answers alone, none of references.")
    ] = False,
    validation: Annotated[float, typer.Option(help="Share of the instructions that is held out.")] = 0.05,
    mixture: Annotated[
        str, typer.Option(help="proportional, equal, or a JSON file of weights by task.")
    ] = "proportional",
    cap: Annotated[int | None, typer.Option(help="Rows of a task that count in the mixture, at most.")] = None,
    rows: Annotated[int | None, typer.Option(help="Training rows in all; default: what there is.")] = None,
    rows_per_task: Annotated[int | None, typer.Option(help="Training rows of each task, instead of a mixture.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Evaluation instances: what shares 13 words in a row with one is left out; may be repeated."),
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS: where the files have another name; may be repeated.")
    ] = None,
    scorer: ScorerSource = None,
    revision: Revision = None,
    rows_per_shard: Annotated[int, typer.Option(help="Rows of an output file.")] = 50_000,
    partitions: Annotated[int | None, typer.Option(help="Parts that the work is cut into; default: by size.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a CPU.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that can't be used.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace pairs that were made in another way.")
    ] = False,
    json: Json = False,
) -> None:
    """Make scored pairs of instances and samples: Parquet files and a manifest.

    Kill it at any moment and run it again: it goes on, and the same input gives the same bytes. --scorer says
    with whose tokenizer the lengths are counted.
    """
    config = {
        "mode": mode,
        "label": label,
        "mismatches": mismatches,
        "sampled_only": sampled_only,
        "validation": validation,
        "mixture": _mixture(mixture),
        "cap": cap,
        "rows": rows,
        "rows_per_task": rows_per_task,
        "rows_per_shard": rows_per_shard,
        "partitions": partitions,
        "seed": seed,
    }
    with progress("building") as advance:
        manifest = build_pairs(
            instances,
            out,
            config=config,
            recorded=recorded or (),
            against=against or (),
            fields=named_fields(field or ()),
            scorer=scorer,
            revision=revision,
            workers=workers,
            strict=strict,
            overwrite=overwrite,
            on_progress=lambda stage, done, total: advance(1, total, stage),
        )
    if json:
        print_json(manifest)
        return
    print_pairs(out, manifest)


def _mixture(given: str) -> Any:
    if given in {"proportional", "equal"}:
        return given
    try:
        weights = loads(Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"--mixture is proportional, equal or a JSON file of weights; {given} can't be read: {error}"
        ) from error
    return weights


def print_pairs(folder: str, manifest: dict[str, Any]) -> None:
    """What a manifest says, for people."""
    train, held_out = manifest["rows"]["train"], manifest["rows"]["validation"]
    kinds = sorted({*train["kinds"], *held_out["kinds"]})
    columns = ("task", *kinds, "train rows", "available", "validation")
    body = [
        (
            task,
            *(f"{train['tasks'].get(task, {}).get(kind, 0):,}" for kind in kinds),
            f"{sum(train['tasks'].get(task, {}).values()):,}",
            f"{manifest['available'].get(task, 0):,}",
            f"{sum(held_out['tasks'].get(task, {}).values()):,}",
        )
        for task in sorted({*train["tasks"], *held_out["tasks"]})
    ]
    total = [f"{train['kinds'].get(kind, 0):,}" for kind in kinds]
    available = sum(manifest["available"].values())
    body.append(("in all", *total, f"{train['rows']:,}", f"{available:,}", f"{held_out['rows']:,}"))
    print_table(f"{folder}: pairs by task", columns, body, right=tuple(range(1, len(columns))))
    for side in ("train", "validation"):
        if tokens := manifest["rows"][side]["tokens"]:
            over = tokens["over_512"]
            print(
                f"{side}: tokens a pair: {tokens['p50']} (median), {tokens['p90']} (90 %), {tokens['p99']} (99 %), "
                f"{tokens['max']} (longest); {over:,} over 512"
            )
    _note_lost(folder, manifest)


def _note_lost(folder: str, manifest: dict[str, Any]) -> None:
    instances, samples = manifest["instances"], manifest["samples"]
    if lost := instances["left_out"] + samples["rows_left_out"] + instances["evaluation_rows_left_out"]:
        note(f"{lost} rows can't be used and were left out: see {Path(folder) / LEFT_OUT}; --strict stops at the first")
    for source, count in zip(manifest["sources"]["against"], instances["contaminated"]["by_file"], strict=True):
        if count:
            note(f"{count} instances share a run of 13 words with {source['name']} and were left out")
    if instances["without_pairs"]:
        note(f"{instances['without_pairs']} instructions gave no pair: no reference, and no sample of known quality")
    if unused := samples["stored"] - samples["used"]:
        note(
            f"{unused} of {samples['stored']} samples are of no instance here that is in use: task, id and instruction "
            "must be the same"
        )
    if instances["held_out_elsewhere"]:
        note(f"{instances['held_out_elsewhere']} training instances ask what is held out elsewhere, and were left out")
    if samples["unlabelled"]:
        note(f"{samples['unlabelled']} samples were left out: there is nothing to label them by")
    if count := samples["questions_without_scorable_reference"]:
        note(
            f"{count} instructions have a reference with nothing in it that {manifest['config']['label']} compares, so "
            "samples score 0 against it (rouge_l counts only a-z and 0-9: try rouge_l_unicode)"
        )
    if manifest["references_without_mismatch"]:
        note(f"{manifest['references_without_mismatch']} references found no other question's for a wrong answer")

"""`cappy export`: a checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from cappy_select.bundle.manifest import MODEL
from cappy_select.cli.output import Json, Revision, new_app, note, print_json, progress
from cappy_select.core.errors import InputError, validation_message
from cappy_select.core.json_text import loads
from cappy_select.export import Card, export_checkpoint

app = new_app()


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint folder, or a hub id (hf://org/name).")],
    out: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    precision: Annotated[Literal["fp32", "fp16", "int8"], typer.Option(help="Of the weights.")] = "fp32",
    revision: Revision = None,
    card: Annotated[
        Path | None, typer.Option(help="JSON with name, version, provenance and licenses for the manifest.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Recorded answers to compare the scores on, as `cappy eval selection` reads; default: ours."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    json: Json = False,
) -> None:
    """Make a bundle of a sequence-classification checkpoint with one label: a reward model, a reranker, your own.

    RoBERTa, XLM-RoBERTa, BERT, MPNet, DistilBERT, ELECTRA, DeBERTa (1 to 3) and ModernBERT.

    The bundle's scores are compared with torch's before it appears; needs the `export` extra.
    """
    with progress("comparing", shown=not json) as advance:
        bundle = export_checkpoint(
            checkpoint,
            out,
            precision=precision,
            revision=revision,
            card=_read_card(card) if card else None,
            calibration=calibration,
            overwrite=overwrite,
            on_stage=None if json else note,
            on_progress=advance,
        )
    if json:
        print_json({"path": str(bundle.path), "digest": bundle.digest} | bundle.manifest.model_dump(mode="json"))
        return
    measured = bundle.manifest.gates
    print(f"{bundle.path}: {bundle}, {(bundle.path / MODEL).stat().st_size / 1e6:.1f} MB")
    print(
        f"against torch fp32: max |Δscore| {measured['max_abs_diff']:.2g} of {measured['pairs']:.0f} pairs, "
        f"winner agreement {measured['winner_agreement']:.3f} of {measured['clear_groups']:.0f} clear groups"
    )


def _read_card(path: Path) -> Card:
    try:
        return Card.model_validate(loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        reason = validation_message(error) if isinstance(error, ValidationError) else error
        raise InputError(f"--card {path} can't be used: {reason}") from error

"""From a checkpoint to a bundle: `export_checkpoint`. It must never train, nor ask an LLM.

Imports torch and transformers, lazily; the `export` extra installs them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cappy_select.bundle.bundle import Bundle, load_bundle
from cappy_select.bundle.manifest import MODEL, TOKENIZER, Precision
from cappy_select.bundle.writing import draft_bundle, new_folder, save_bundle
from cappy_select.core.errors import MissingExtra


class Card(BaseModel):
    """What people should know about a bundle and no measurement can tell: goes into its manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str | None = Field(None, min_length=1, description="default: the checkpoint's own name")
    version: str = "0"
    provenance: dict[str, Any] = Field(default_factory=dict)
    licenses: dict[str, str] = Field(default_factory=dict)


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    precision: Precision = "fp32",
    revision: str | None = None,
    card: Card | None = None,
    calibration: str | Path | None = None,
    overwrite: bool = False,
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Bundle:
    """Make a bundle of a sequence-classification checkpoint with one label: any reward model or reranker.

    RoBERTa, XLM-RoBERTa, BERT, MPNet, DistilBERT, ELECTRA, DeBERTa (1 to 3) and ModernBERT.

    Args:
        checkpoint: A folder, or a hub id (`hf://org/name` or `org/name`). An existing folder wins.
        out: The bundle's folder; appears only when it is whole and its scores pass the parity check.
        precision: `fp32`; `fp16`, for devices that compute in it; `int8`, for CPUs (a quarter of the size).
        revision: Branch, tag or commit of a hub repository.
        card: Name, version, provenance and licences for the manifest.
        calibration: Recorded answers (JSONL of `id, instruction, candidates[{model, response}]`, plain or `.gz`)
            to compare the scores on; default: 100 pairs of our own. Answers like those it will score are better.
        overwrite: Replace a bundle that exists; a folder that holds anything else never is.
        on_stage: Called with a few words before each long stage.
        on_progress: Called for each calibration pair with (pairs in this step, pairs in all).

    Raises:
        ExportError: wrong architecture, several labels, scores that are not the raw output, no tokenizer,
            damaged weights, or scores that fail the parity check of the precision (`cappy_select.export.parity`).
        InputError: `out` exists, or can't be written; `calibration` can't be read.
        BundleNotFound: there is no such folder or hub repository.
        MissingExtra: torch, transformers or onnx is not installed.
    """
    require_export()
    from cappy_select.export.checkpoint import load_checkpoint
    from cappy_select.export.graph import write_model
    from cappy_select.export.parameters import shape_of
    from cappy_select.export.parity import calibration_groups, measure

    card, stage = card or Card(), on_stage or (lambda _: None)
    groups = calibration_groups(calibration)
    with new_folder(Path(out), overwrite=overwrite) as folder:
        stage("loading the checkpoint")
        loaded = load_checkpoint(checkpoint, revision)
        fields: dict[str, Any] = {
            "name": card.name or loaded.name,
            "version": card.version,
            "architecture": loaded.architecture,
            "max_length": loaded.max_length,
            "precision": precision,
            "provenance": loaded.provenance
            | {"calibration": Path(calibration).name if calibration else "built-in"}
            | card.provenance,
            "licenses": card.licenses,
            "config": shape_of(loaded.model.config),
        }
        (folder / TOKENIZER).write_text(loaded.tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
        stage(f"writing the model in {precision}")
        fused, layers, fields["parameters"] = write_model(loaded.model, folder / MODEL, precision, loaded.max_length)
        if fused < layers:
            stage(
                f"note: attention is one node in {fused} of {layers} layers; the others run as single operators, "
                "which takes more time and memory"
            )
        fields["provenance"] = {"attention": f"one node in {fused} of {layers} layers"} | fields["provenance"]
        stage("comparing its scores with torch's")
        measured = measure(draft_bundle(folder, fields), loaded, precision, groups, on_progress)
        save_bundle(folder, fields | {"gates": measured})
    return load_bundle(out)


def require_export() -> None:
    """Raises MissingExtra when a package that exporting needs is not installed."""
    for module in ("torch", "transformers", "onnx", "sympy"):
        try:
            __import__(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise MissingExtra("export", "exporting a checkpoint", module) from error

"""What a bundle says of itself: its files and their hashes, what it was made of, what was measured."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cappy_select.core.types import CutSide

FORMAT_VERSION = 1
MANIFEST, MODEL, TOKENIZER = "manifest.json", "model.onnx", "tokenizer.json"
MODEL_CONFIG = "config"  # in the metadata of model.onnx: what training needs and the graph does not show, as JSON

Precision = Literal["fp32", "fp16", "int8"]


class FileRecord(BaseModel):
    """What a file of the bundle must be."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0, lt=2**31)  # protobuf's own limit


class Manifest(BaseModel):
    """What a bundle is, where it comes from and what was measured when it was made.

    Attributes:
        format_version: Of the bundle's format.
        name: The scorer's name, as a Selection records it.
        version: Of the scorer.
        architecture: The checkpoint's kind, layers and width, such as `bert 6x384`.
        max_length: Tokens of instruction, response and special tokens together.
        truncation: The longer of the two texts loses tokens first.
        cut_side: Where a too long instruction loses them.
        precision: Of the weights.
        gates: What was measured against the fp32 checkpoint at export.
        provenance: What it was made of: the checkpoint, its commit, the calibration.
        licenses: By what they are for, as far as known.
        files: SHA-256 and size of `model.onnx` and `tokenizer.json`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    format_version: Literal[1] = 1
    name: str = Field(min_length=1)
    version: str = "0"
    architecture: str
    max_length: int = Field(ge=8, le=2**20, description="tokens of instruction, response and special tokens together")
    truncation: Literal["longest_first"] = "longest_first"
    cut_side: CutSide = "right"
    precision: Precision
    # The parity check of the export; the name on disk is older than the word.
    gates: dict[str, float] = Field(default_factory=dict, description="measured against the fp32 checkpoint at export")
    provenance: dict[str, Any] = Field(default_factory=dict)
    licenses: dict[str, str] = Field(default_factory=dict, description="what -> licence, as far as known")
    files: dict[str, FileRecord]

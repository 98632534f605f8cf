"""What a bundle says of itself: its files and their hashes, what it was made of, what was measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from cappy_select.core.types import CutSide

FORMAT_VERSION = 1
MANIFEST, MODEL, TOKENIZER = "manifest.json", "model.onnx", "tokenizer.json"
_MOST_PARAMETERS = 10_000  # RoBERTa-large has 393

Precision = Literal["fp32", "fp16", "int8"]
Name = Annotated[str, Field(min_length=1, max_length=500)]  # of a parameter or a tensor
Setting = Annotated[str, Field(max_length=200)] | int | float | None


class FileRecord(BaseModel):
    """What a file of the bundle must be."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0, lt=2**31)  # protobuf's own limit


class ParameterRecord(BaseModel):
    """How to get a parameter of the checkpoint back from a bundle.

    Attributes:
        tensor: The tensor of `model.onnx` that holds it.
        scale: The tensor that an int8 `tensor` is multiplied with: one number a column, or a row of a table.
        transposed: Whether the tensor holds it with its two axes exchanged.
        third: Which third of the tensor's last axis it is, counted from 0, where query, key and value are in one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensor: Name
    scale: Name | None = None
    transposed: bool = False
    third: Literal[0, 1, 2] | None = None

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not said is as usual: a manifest has hundreds of these."""
        return {name: value for name, value in handler(self).items() if value is not None and value is not False}


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
        config: The checkpoint's shape, by the names of its `config.json`; training starts from it.
        parameters: By their names in the checkpoint, how to get them back; what the model no longer holds is left out.
            Empty in bundles that were made before this was recorded: they score, and training can't start from them.
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
    config: dict[Name, Setting] = Field(default_factory=dict, max_length=100)
    parameters: dict[Name, ParameterRecord] = Field(default_factory=dict, max_length=_MOST_PARAMETERS)

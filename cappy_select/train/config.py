"""What a training run is: one frozen value, as a recipe gives it, with overrides from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cappy_select.core.errors import InputError, validation_message
from cappy_select.core.json_text import loads

_NAMES = frozenset({"pairs", "checkpoint", "revision"})  # text, whatever it looks like


class TrainConfig(BaseModel):
    """A run of the trainer; the defaults are those that the paper's repository finetunes with for one task.

    Args:
        pairs: A folder of pairs (`cappy build`), or a file of instances to make them of with the defaults.
        checkpoint: What to start from: the folder of a Hugging Face checkpoint or of a bundle, `hf://org/name`, or
            `embedded`, the default scorer.
        revision: Branch, tag or commit of a hub id.
        fresh: Random weights of the shape in the checkpoint's config.json; its own are not read, nor needed.
        updates: Of the optimiser.
        batch: Pairs an update, or groups when there is a ranking loss.
        micro_tokens: Tokens that each device works on at a time, padding included: speed and memory, not the result.
            None: 512 on a CPU, where more is no faster and the buckets fill better, else 16,384.
        buckets: Lengths in tokens that pairs are padded to; the last one is the window.
        learning_rate: At the end of the warm-up.
        schedule: After it: `linear` or `cosine` to 0, or `constant`.
        warmup: Share of the updates.
        weight_decay: AdamW's; norms and biases have none.
        max_grad_norm: The norm that gradients are cut to; None: not cut.
        l2_weight: Weight of the L2 loss.
        ranking_weight: Weight of the Bradley-Terry loss among the responses of a group.
        ranking_scale: What two scores' difference is multiplied by in it. Scores that the L2 loss keeps in [0, 1]
            differ by 1 at most, where a scale of 1 still pulls them apart.
        group_rows: Rows of a group that an update compares at most: one of the best, others drawn anew each time.
        dropout: False turns all of it off; the rates are the checkpoint's.
        compute_dtype: What products are made in; weights, norms and softmax are fp32 always.
        remat: Compute activations anew in the backward pass: less memory, a third more work.
        seed: Of order, dropout and new weights.
        validation_rows: Validation pairs that are evaluated, at most, drawn by group; None: all.
        evaluate_every: Updates between two evaluations on them; None: only before the first and after the last.
        patience: Evaluations without a better one, after which training ends; None: never.
        max_minutes: Minutes of updates, after which training ends as if all were made; None: no limit. For a machine
            that is lent for a while: leave room for the evaluation and the bundle.
        save_every: Updates between two checkpoints.
        fsdp: Devices that share one copy of the weights; the others hold further copies.
        peak_tflops: What one device can do at most, for MFU; default: known for common GPUs and TPUs.
        bundle: Precision of the bundle made at the end; None: no bundle, only a checkpoint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)

    pairs: str = Field(min_length=1)
    checkpoint: str = Field(min_length=1)
    revision: str | None = None
    fresh: bool = False
    updates: int = Field(400, ge=1)
    batch: int = Field(256, ge=1)
    micro_tokens: int | None = Field(None, ge=1)
    buckets: tuple[int, ...] = Field((32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512), min_length=1)
    learning_rate: float = Field(2e-5, gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(0.1, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float | None = Field(None, gt=0)
    l2_weight: float = Field(1.0, ge=0)
    ranking_weight: float = Field(0.0, ge=0)
    ranking_scale: float = Field(1.0, gt=0)
    group_rows: int = Field(8, ge=2)
    dropout: bool = True
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    seed: int = Field(11111, ge=0, lt=2**31)
    validation_rows: int | None = Field(10_000, ge=1)
    evaluate_every: int | None = Field(50, ge=1)
    patience: int | None = Field(None, ge=1)
    max_minutes: float | None = Field(None, gt=0)
    save_every: int = Field(100, ge=1)
    fsdp: int = Field(1, ge=1)
    peak_tflops: float | None = Field(None, gt=0)
    bundle: Literal["fp32", "fp16", "int8"] | None = "fp32"

    @model_validator(mode="after")
    def _agrees(self) -> TrainConfig:
        if not self.l2_weight and not self.ranking_weight:
            raise ValueError("l2_weight and ranking_weight are both 0: there is nothing to learn")
        if list(self.buckets) != sorted(set(self.buckets)) or self.buckets[0] < 1:
            raise ValueError(f"buckets must ascend from at least 1, got {self.buckets}")
        return self

    @property
    def window(self) -> int:
        """Tokens of a pair at most; longer ones are cut."""
        return self.buckets[-1]

    @property
    def width(self) -> int:
        """Rows of a unit of a batch."""
        return self.group_rows if self.ranking_weight else 1

    def changed(self, settings: Sequence[str]) -> TrainConfig:
        """With `KEY=VALUE` settings.

        Args:
            settings: Each a field and its value as JSON, or as plain text.

        Returns:
            A configuration with these values over the ones here.

        Raises:
            InputError: a setting is none, or its value can't be; names the key.
        """
        given: dict[str, Any] = {}
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals or key not in type(self).model_fields:
                known = ", ".join(type(self).model_fields)
                raise InputError(f"--set takes KEY=VALUE, where KEY is one of {known}; got {setting!r}")
            try:
                given[key] = text if key in _NAMES and text != "null" else loads(text)
            except ValueError:
                given[key] = text
        try:
            return type(self).model_validate(self.model_dump() | given)
        except ValidationError as error:
            raise InputError(f"--set {validation_message(error)}") from error

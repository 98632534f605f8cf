"""What an adaptation is: one frozen value, the same from the command line and from Python."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cappy_select.ask.parameters import FIXED
from cappy_select.ask.sampling import Plan
from cappy_select.bundle.manifest import Precision
from cappy_select.core.errors import InputError, validation_message


class AdaptConfig(BaseModel):
    """How a scorer learns a task from instances of it.

    Args:
        models: Who is asked, by name; none: the samples are recorded ones.
        samples: Answers asked of each model to each instance; None: 4, or what the plan says.
        plan: What to ask of each model.
        icl: In-context examples put before the LLMs' prompts, drawn from the training instances.
        params: Passed with every call, such as temperature and max_tokens.
        logprobs: Ask for log-likelihoods, for self-scoring.
        label: What says how right a sampled answer is, when nobody did (`data.labels`).
        references: Whether references, wrong choices and other instances' references are trained on too; None: unless
            somebody said how right the samples are.
        augmentation: Whether sampled answers are trained on at all.
        held_out: Share of the instances that only the report sees; those that the file's `split` holds out are it
            instead, when there are any.
        validation: Share of the other instances that training is watched by.
        scorer: What is adapted: a bundle's or a checkpoint's folder, `hf://org/name`; None: the embedded default.
        revision: Of a hub id.
        epochs: Over the training instances; more when those are few, for at least 40 updates.
        settings: `KEY=VALUE` of the trainer's configuration, over what is chosen here.
        precision: Of the bundle.
        seed: Of all that is drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)

    models: tuple[str, ...] = ()
    samples: int | None = Field(None, ge=1)
    plan: Plan | None = None
    icl: int = Field(0, ge=0)
    params: dict[str, Any] = Field(default_factory=dict)
    logprobs: bool = False
    label: str = "rouge_l"
    references: bool | None = None
    augmentation: bool = True
    held_out: float = Field(0.2, gt=0, lt=1)
    validation: float = Field(0.1, ge=0, lt=1)
    scorer: str | None = None
    revision: str | None = None
    epochs: float = Field(1.0, gt=0)
    settings: tuple[str, ...] = ()
    precision: Precision = "fp32"
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("params")
    @classmethod
    def _are_open(cls, params: dict[str, Any]) -> dict[str, Any]:
        """What is kept in the folder holds no key, and nothing that is said elsewhere."""
        if fixed := sorted(params.keys() & FIXED):
            raise ValueError(f"{', '.join(fixed)} can't be given here; keys come from the environment")
        return params


def adapt_config(**given: Any) -> AdaptConfig:
    """The configuration that options give. Raises InputError."""
    try:
        return AdaptConfig(**given)
    except ValidationError as error:
        raise InputError(validation_message(error)) from error

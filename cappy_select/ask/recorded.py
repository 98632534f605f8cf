"""Recorded answers of models on disk: instances with `candidates`, a JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cappy_select.core.errors import InputError, validation_message
from cappy_select.core.figures import MOST_DOLLARS, MOST_TOKENS, tokens_of
from cappy_select.core.files import json_lines, read_lines
from cappy_select.core.types import Usage
from cappy_select.text.thinking import behind_thinking


class Recorded(BaseModel):
    """One recorded answer.

    Attributes:
        model: The model that gave it.
        response: Its text, with its thinking.
        correct: Whether it is right; None when nobody said so.
        human: A person's rating, from 1 to 5; None when nobody rated it.
        answer: The final answer within the response, if it was extracted.
        sampling: How it was asked for.
        finish_reason: Why the model ended, as the provider said.
        usage: Tokens; None when unknown.
        cost: Dollars; None when unknown.
        latency_s: Seconds that the call took; 0 when unknown.
        logprob_sum: Log-likelihood of the answer's tokens, natural, summed.
        logprob_mean: The same a token.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    model: str
    response: str
    correct: bool | None = None
    human: float | None = Field(None, ge=1, le=5, strict=True)
    answer: str | None = Field(None, description="the final answer within the response, if it was extracted")
    sampling: dict[str, Any] = Field(default_factory=dict, description="how it was asked for")
    finish_reason: str | None = None
    usage: Usage | None = None
    cost: float | None = Field(None, ge=0, le=MOST_DOLLARS, strict=True)
    latency_s: float = Field(0.0, ge=0, allow_inf_nan=False, strict=True)
    logprob_sum: float | None = None
    logprob_mean: float | None = None

    @field_validator("usage")
    @classmethod
    def _is_possible(cls, usage: Usage | None) -> Usage | None:
        if usage is not None and (tokens_of(usage.prompt_tokens) is None or tokens_of(usage.completion_tokens) is None):
            raise ValueError(f"expected at most {MOST_TOKENS} tokens")
        return usage

    @property
    def said(self) -> str:
        """The response behind its thinking: what scores, votes and labels go by."""
        return behind_thinking(self.response)

    @property
    def quality(self) -> float | None:
        """How good the answer was, in [0, 1]; None when that is not recorded."""
        if self.correct is not None:
            return float(self.correct)
        return None if self.human is None else (self.human - 1) / 4


class RecordedInstance(BaseModel):
    """One instruction with its recorded answers.

    Attributes:
        id: Its name in the file.
        instruction: What was asked.
        references: Right answers, as far as known.
        candidates: The answers, in the order in which they were asked for.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    id: str
    instruction: str
    references: list[str] = Field(default_factory=list)
    candidates: list[Recorded]


def read_recorded(path: str | Path) -> Iterator[RecordedInstance]:
    """The instances of a JSONL file, one by one.

    Args:
        path: The file, plain or gzipped: `id, instruction, candidates[{model, response}]` a line; more fields as in
            `Recorded`, others are passed over. Blank lines are, too.

    Yields:
        An instance for each line.

    Raises:
        InputError: the file or a line of it can't be read; names the file and the line.
    """
    for where, row in json_lines(read_lines(path), str(path)):
        try:
            yield RecordedInstance.model_validate(row)
        except ValidationError as error:
            expected = "expected id, instruction, candidates[{model, response}]"
            raise InputError(f"{where}: {validation_message(error)} ({expected})") from error

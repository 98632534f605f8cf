"""Recorded answers, played back: the online line without a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cappy_select.ask.recorded import Recorded, read_recorded
from cappy_select.core.closing import Closable
from cappy_select.core.errors import InputError, ProviderError
from cappy_select.core.types import Candidate, Request, Usage, content_text


class ReplayProvider(Closable):
    """Answers from a file of instances with `candidates`, matched by the last user message.

    Sample k of a request is the k-th recorded answer; asking for more than were recorded is a failure.

    Args:
        file: JSONL, plain or `.gz`: `instruction` and `candidates[{model, response}]` a line.
        recorded_model: Only this model's answers; None for all, in their recorded order.

    Raises:
        InputError: the file can't be read, or has no such answers.
    """

    def __init__(self, file: str | Path, recorded_model: str | None = None) -> None:
        self._file, self._recorded_model = str(file), recorded_model
        self._answers: dict[str, list[Recorded]] = {}
        for instance in read_recorded(file):
            wanted = [a for a in instance.candidates if recorded_model in (None, a.model)]
            self._answers.setdefault(instance.instruction, []).extend(wanted)
        if not any(self._answers.values()):
            known = sorted({answer.model for instance in read_recorded(file) for answer in instance.candidates})
            wanted_model = f" of {recorded_model!r}" if recorded_model else ""
            raise InputError(f"{file} has no answers{wanted_model}; it has those of {', '.join(known) or 'no model'}")

    @property
    def model(self) -> str:
        """The recorded model's name, or the file's."""
        return self._recorded_model or f"replay:{Path(self._file).name}"

    def unsupported(self, params: Mapping[str, Any]) -> frozenset[str]:
        """All sampling parameters: what was recorded can't be sampled anew. `logprobs` only if there are none.

        Args:
            params: Sampling parameters, `n` and `logprobs` by name.

        Returns:
            The names of those that change nothing.
        """
        recorded = [answer.logprob_sum for answers in self._answers.values() for answer in answers]
        able = {"n"} | ({"logprobs"} if any(value is not None for value in recorded) else set())
        return frozenset(params.keys() - able)

    def price(self, usage: Usage) -> float:
        """Nothing: what the answers cost when they were recorded is in the candidates.

        Args:
            usage: Not used.

        Returns:
            0 dollars.
        """
        return 0.0

    async def complete(self, request: Request) -> list[Candidate]:
        """The recorded answers of one call, with the cost and the log-likelihood that were recorded.

        Args:
            request: `sample` says which of the recorded answers is the first, `n` how many they are; parameters are not
                read.

        Returns:
            At least one answer; fewer than `n` where fewer were recorded.

        Raises:
            ProviderError: there is no such recorded answer (`bad_request`).
        """
        asked = [message for message in request.messages if message["role"] == "user"]
        prompt, _ = content_text(asked[-1].get("content") if asked else None)
        answers = self._answers.get(prompt, [])[request.sample :][: request.n]
        if not answers:
            raise ProviderError(
                f"{self._file} has no recorded answer {request.sample} to {prompt[:60]!r}",
                kind="bad_request",
                model=self.model,
            )
        return [
            Candidate(
                model=answer.model,
                message={"role": "assistant", "content": answer.response},
                finish_reason=answer.finish_reason,
                usage=answer.usage or Usage(),
                cost=answer.cost,
                logprob_sum=answer.logprob_sum,
                logprob_mean=answer.logprob_mean,
            )
            for answer in answers
        ]

"""A Selection as LiteLLM's response: whole, or in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from litellm.types.utils import Choices, GenericStreamingChunk, Message, ModelResponse, Usage

from cappy_select import (
    Delta,
    Selection,
)
from cappy_select.ask import (
    meaning_of,
)
from cappy_select.core import (
    content_text,
    without_halves,
)


def fill(response: ModelResponse, model: str, selection: Selection) -> ModelResponse:
    """Make a response of LiteLLM's the winner's, with the bill of all calls and, as `cappy`, the summary."""
    best = selection.best
    for name, value in without_halves(best.response_fields).items():  # citations, fingerprints
        setattr(response, name, value)
    response.model = model
    reason = openai_reason(best.finish_reason)
    response.choices = [
        Choices(
            index=0,
            finish_reason=reason,
            message=Message(**without_halves(best.message)),  # a proxy writes UTF-8, which has no form for half of one
            logprobs=without_halves(best.logprobs),
            **_native(best.finish_reason, reason),
        )
    ]
    response.usage = Usage(**_usage(selection))  # type: ignore[attr-defined]
    response.cappy = summary(selection)  # type: ignore[attr-defined]
    response._hidden_params["cappy"] = response.cappy  # type: ignore[attr-defined]
    if selection.cost is not None:
        response._hidden_params["response_cost"] = selection.cost
    return response


class Chunks:
    """The pieces of one answer as LiteLLM's streaming chunks."""

    def __init__(self) -> None:
        self._last = ""

    def of(self, piece: Delta | Selection) -> Iterator[GenericStreamingChunk]:
        """The chunks of a piece; those of the Selection end the stream, with the bill and the summary."""
        if isinstance(piece, Selection):
            yield _chunk(
                is_finished=True,
                finish_reason=openai_reason(piece.best.finish_reason),
                usage=_usage(piece),
                provider_specific_fields={"cappy": summary(piece)},
            )
            return
        message: dict[str, Any] = without_halves(piece.message)
        message |= message.pop("provider_specific_fields", None) or {}
        own = {"role", "content", "tool_calls"}
        others = {name: value for name, value in message.items() if name not in own and value is not None}
        if others:
            yield _chunk(provider_specific_fields=others)
        text, _ = content_text(message.get("content"))
        if text and text == self._last:  # LiteLLM gives up on a stream with many equal chunks in a row
            yield _chunk(text=text[:1])
            text = text[1:]
        if text:
            yield _chunk(text=text)
            self._last = text
        for call in message.get("tool_calls") or ():
            yield _chunk(tool_use=call)


def openai_reason(reason: str | None) -> str:
    """A finish reason in OpenAI's words; LiteLLM makes `stop` of every one that it does not know."""
    if reason in ("stop", "length", "tool_calls", "function_call", "content_filter"):
        return str(reason)
    return _OPENAIS.get(meaning_of(reason), reason or "stop")


_OPENAIS = {"complete": "stop", "tool_calls": "tool_calls", "cut_off": "length", "refused": "content_filter"}


def _native(reason: str | None, given: str) -> dict[str, Any]:
    return {} if reason in (None, given) else {"provider_specific_fields": {"native_finish_reason": reason}}


def summary(selection: Selection) -> dict[str, Any]:
    """What was weighed, without the texts: the winner's score first, every candidate and every failure."""
    made: dict[str, Any] = {
        "score": selection.best.score,
        "model": selection.best.model,
        "strategy": selection.strategy,
        "scorer": selection.scorer,
        "plan": selection.plan,
        "ended": selection.ended,
        "latency_s": selection.latency_s,
        "cost": selection.cost,
        "usage_estimated": selection.usage.estimated,
        "candidates": [
            candidate.model_dump(
                include={"model", "index", "score", "finish_reason", "rejected", "usage", "cost", "latency_s"}
            )
            for candidate in selection.candidates
        ],
        "failures": [failure.model_dump(include={"model", "kind", "message"}) for failure in selection.failures],
    }
    return without_halves(made)  # type: ignore[no-any-return]


def _usage(selection: Selection) -> Any:
    usage = selection.usage
    tokens = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    return tokens if selection.cost is None else {**tokens, "cost": selection.cost}  # LiteLLM bills a stream by it


def _chunk(**fields: Any) -> GenericStreamingChunk:
    empty = GenericStreamingChunk(text="", tool_use=None, is_finished=False, finish_reason="", usage=None, index=0)
    empty.update(fields)  # type: ignore[typeddict-item]
    return empty

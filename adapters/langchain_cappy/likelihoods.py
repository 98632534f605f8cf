"""Log-probabilities of a LangChain model's answer, in whichever form its partner package keeps them.

One token without a number, and the sum is unknown: a wrong sum would choose a wrong answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage

_HIGHEST = 1e-3  # above 0 only by rounding
_VALUES = ("logprob", "log_probability", "logProbability")


class Likelihood(NamedTuple):
    """The tokens' log-probabilities in OpenAI's form, their sum and their mean; None for what is not known."""

    logprobs: dict[str, Any] | None = None
    total: float | None = None
    mean: float | None = None


def likelihood_of(message: AIMessage) -> Likelihood:
    """Of an answer's metadata, or of its content's blocks (the Responses API)."""
    said = message.response_metadata
    forms = (said.get("logprobs"), said.get("logprobs_result"), list(_in_blocks(message.content)))
    for form in forms:
        if (tokens := _tokens(form)) is None:
            continue
        values = [_number(value) for _, value in tokens]
        content = [{"token": token, "logprob": value} for (token, _), value in zip(tokens, values, strict=True)]
        logprobs = dict(form) if isinstance(form, Mapping) and "content" in form else {"content": content}
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return Likelihood(logprobs)
        return Likelihood(logprobs, math.fsum(known), math.fsum(known) / len(known))
    return _of_mean(message, _number(said.get("avg_logprobs")))


def _of_mean(message: AIMessage, mean: float | None) -> Likelihood:
    """Gemini's mean over the answer's tokens; they are counted together with those of its thinking."""
    usage: Mapping[str, Any] = message.usage_metadata or {}
    details = usage.get("output_token_details") or {}
    written = usage.get("output_tokens")
    if mean is None or not isinstance(written, int):
        return Likelihood(mean=mean)
    tokens = written - int(details.get("reasoning") or 0)
    return Likelihood(total=mean * tokens if tokens > 0 else None, mean=mean)


def _tokens(form: Any) -> list[tuple[str, Any]] | None:
    """Tokens and what stands for their log-probabilities; None where there are none."""
    if isinstance(form, Mapping):
        for name in ("content", "chosen_candidates", "chosenCandidates"):  # OpenAI; Gemini
            if isinstance(inner := form.get(name), list | tuple):
                return _tokens(inner)
        values: Any = form.get("token_logprobs")  # Together, Fireworks, older completions
        if not _is_list(values):
            return None
        names: Any = form.get("tokens")
        texts: Any = names if _is_list(names) and len(names) == len(values) else [""] * len(values)
        return [(str(text), value) for text, value in zip(texts, values, strict=True)] or None
    if not _is_list(form) or not form:
        return None
    return [_token(item) for item in form]


def _token(item: Any) -> tuple[str, Any]:
    if not isinstance(item, Mapping):
        return "", item
    value = next((item[name] for name in _VALUES if name in item), None)
    return str(item.get("token") or ""), value


def _in_blocks(content: Any) -> Iterator[Any]:
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and block.get("type") in ("text", "output_text") and _is_list(block.get("logprobs")):
            yield from block["logprobs"]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _number(value: Any) -> float | None:
    """A log-probability; None for what can't be one: NaN, an infinity, more than 0, a bool, a text."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value > _HIGHEST:
        return None
    return float(value)

"""Answers in OpenAI's format, as its client and LiteLLM give them, as candidates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from cappy_select.ask.finish_reasons import graver, meaning_of
from cappy_select.ask.prices import estimated_usage
from cappy_select.ask.providers.failures import error_in, failure_from, failure_of
from cappy_select.core.characters import without_halves
from cappy_select.core.errors import InputError, ProviderError
from cappy_select.core.figures import dollars_of, tokens_of
from cappy_select.core.types import Candidate, Request, Usage
from cappy_select.text.tool_calls import with_texts

__all__ = [
    "COMMON",
    "Cost",
    "TokenPrices",
    "body_of",
    "candidates_of",
    "failure_of",
    "likelihood",
    "refuse_seed",
    "without_none",
]

_KNOWN_FIELDS = {"id", "object", "created", "model", "choices", "usage", "error"}

Cost = Callable[[Usage], float | None]

COMMON = frozenset({"n", "temperature", "top_p", "seed", "max_tokens", "logprobs"})
"""OpenAI's own sampling parameters, and `logprobs`."""


class TokenPrices(NamedTuple):
    """Dollars a token.

    Attributes:
        per_prompt: Of a token that is read.
        per_completion: Of a token that is written.
    """

    per_prompt: float
    per_completion: float

    @classmethod
    def given(cls, per_prompt: float | None, per_completion: float | None) -> TokenPrices | None:
        """Both prices, or None for none.

        Args:
            per_prompt, per_completion: Dollars a token.

        Returns:
            The prices; None when neither is given.

        Raises:
            InputError: only one is given, or one is no amount of 0 or more.
        """
        for name, price in (("input_cost_per_token", per_prompt), ("output_cost_per_token", per_completion)):
            if price is not None and dollars_of(price) is None:
                raise InputError(f"{name} must be dollars a token, 0 or more, got {price!r:.80}")
        if (per_prompt is None) != (per_completion is None):
            raise InputError("give both input_cost_per_token and output_cost_per_token, or neither")
        return None if per_prompt is None or per_completion is None else cls(per_prompt, per_completion)

    def of(self, usage: Usage) -> float:
        """Dollars for `usage`.

        Args:
            usage: Tokens of one or several calls.

        Returns:
            Dollars.
        """
        return self.per_prompt * usage.prompt_tokens + self.per_completion * usage.completion_tokens


def refuse_seed(params: Mapping[str, Any]) -> None:
    """Raises InputError for a seed among a provider's own parameters."""
    if "seed" in params:
        raise InputError("give the seed to the Selector or its plan: the same one in every call gives one answer")


def candidates_of(
    response: Any,
    request: Request,
    *,
    model: str,
    cost_of: Cost,
    native_ends: Sequence[str] = (),
    secrets: Collection[str | None] = (),
) -> list[Candidate]:
    """A candidate for each choice of a response, which is an object of OpenAI's client or LiteLLM, or the body itself.

    They share its usage and cost, so that sums are exact. A choice that brought no message, or an error, is one that
    can't win. `native_ends` are the finish reasons as they came, where the response may have others; `secrets` go from
    messages.

    Raises ProviderError: of its kind where the body, or every choice, holds an error; `invalid_response` where there
    is no choice. It has the usage and the cost that the body reports.
    """
    body = body_of(response)
    given = body.get("choices")
    choices: list[Any] = given if isinstance(given, list) else []
    messages = [_message(choice) for choice in choices]
    usage = _usage(request, body, [message for message in messages if message])
    cost = cost_of(usage)
    errors = [error_in(choice) or error_in(_aside(choice)) for choice in choices]
    error = error_in(body) or (errors[0] if errors and all(errors) else None)
    if error is not None:
        billed = usage if choices or not usage.estimated else None
        raise failure_from(error, model=model, secrets=secrets, usage=billed, cost=cost)
    natives = native_ends if len(native_ends) == len(choices) else [""] * len(choices)
    ends = [_end(choice, native) for choice, native in zip(choices, natives, strict=True)]
    if not any(
        message or meaning_of(end) in ("refused", "failed") for message, end in zip(messages, ends, strict=True)
    ):
        raise ProviderError(_nothing_in(response, body), kind="invalid_response", model=model, usage=usage, cost=cost)
    fields = {name: value for name, value in body.items() if name not in _KNOWN_FIELDS and value is not None}
    candidates = []
    for position, (choice, message, end, lost) in enumerate(zip(choices, messages, ends, errors, strict=True)):
        logprobs = choice.get("logprobs") if isinstance(choice, Mapping) else None
        logprobs = dict(logprobs) if isinstance(logprobs, Mapping) else None
        total, mean = likelihood(logprobs)
        candidates.append(
            Candidate(
                model=model,
                message={"role": "assistant", "content": None} | (message or {}),
                finish_reason=f"error: {failure_from(lost, model=model, secrets=secrets).message}" if lost else end,
                usage=Usage(
                    prompt_tokens=_share(usage.prompt_tokens, position, len(choices)),
                    completion_tokens=_share(usage.completion_tokens, position, len(choices)),
                    estimated=usage.estimated,
                ),
                cost=None if cost is None else cost / len(choices),
                logprobs=logprobs,
                logprob_sum=total,
                logprob_mean=mean,
                response_fields=fields,
            )
        )
    return candidates


def likelihood(logprobs: dict[str, Any] | None) -> tuple[float | None, float | None]:
    """Sum and mean of the tokens' log-probabilities (natural); None where there are none."""
    try:
        values = [float(token["logprob"]) for token in (logprobs or {}).get("content") or ()]
    except (TypeError, KeyError, ValueError):  # a compatible server's own format
        return None, None
    return (sum(values), sum(values) / len(values)) if values else (None, None)


def body_of(response: Any) -> Mapping[str, Any]:
    """The response as JSON has it, whatever types its fields have."""
    if isinstance(response, list) and response and isinstance(response[0], Mapping):
        return response[0]  # Google's errors stand in a list
    if isinstance(response, Mapping):
        return response
    if not hasattr(response, "model_dump"):
        return {}
    # Without a warning where a field is of another type than its class says.
    body: dict[str, Any] = response.model_dump(mode="json", exclude_unset=False, warnings=False)
    usage: Any = getattr(response, "usage", None)
    if hasattr(usage, "model_dump"):  # as it was: in JSON's form True is 1
        body["usage"] = usage.model_dump(warnings=False)
    return body


def _nothing_in(response: Any, body: Mapping[str, Any]) -> str:
    if "choices" in body:
        return "the response has no choices"
    return f"the response is no chat completion but {type(response).__name__} {response!r:.80}"


def _message(choice: Any) -> dict[str, Any] | None:
    """A choice's message; None where it has none."""
    message = choice.get("message") if isinstance(choice, Mapping) else None
    return with_texts(without_none(message)) if isinstance(message, Mapping) and message else None


def without_none(value: Any) -> Any:
    """Without the fields that a client's classes add; what a tool is called with stays as it is."""
    if isinstance(value, Mapping):
        return {
            name: inner if name in ("arguments", "input") else without_none(inner)
            for name, inner in value.items()
            if inner is not None
        }
    return [without_none(inner) for inner in value] if isinstance(value, list) else value


def _aside(choice: Any) -> Mapping[str, Any]:
    """What LiteLLM keeps of a choice that OpenAI's format has no place for."""
    aside = choice.get("provider_specific_fields") if isinstance(choice, Mapping) else None
    return aside if isinstance(aside, Mapping) else {}


def _end(choice: Any, native: str) -> str | None:
    """Why an answer ended: in the gateway's words, unless its provider's own say more against it.

    LiteLLM makes `stop` of every word that it does not know, and of `error`.
    """
    if not isinstance(choice, Mapping):
        return native or None
    end = _word(choice.get("finish_reason") or choice.get("finish_details"))
    end = graver(end, _word(choice.get("native_finish_reason")))
    for word in (native, _word(_aside(choice).get("native_finish_reason"))):
        is_new = word and meaning_of(word) == "unknown" and meaning_of(end) == "complete"
        end = word if is_new else graver(end, word or None)
    return end


def _word(reason: Any) -> str | None:
    if isinstance(reason, Mapping):  # SGLang's {"type": "abort", ...}
        reason = reason.get("type")
    return None if reason is None else str(without_halves(str(reason)))[:500]


# As OpenAI's format, Anthropic and Bedrock, Gemini, Ollama report them.
_USAGES = (
    *(("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens"), ("inputTokens", "outputTokens")),
    *(("promptTokenCount", "candidatesTokenCount"), ("prompt_eval_count", "eval_count")),
)


def _usage(request: Request, body: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> Usage:
    """As reported; what can't be a number of tokens is estimated."""
    places = [body.get("usage"), body.get("usageMetadata"), body]
    pairs = [[place.get(name) for name in names] for place in places if isinstance(place, Mapping) for names in _USAGES]
    given = next((pair for pair in pairs if pair != [None, None]), [None, None])
    prompt, completion = (tokens_of(0 if value is None else value) for value in given)
    if prompt is not None and completion is not None and prompt + completion:
        return Usage(prompt_tokens=prompt, completion_tokens=completion)
    estimated = estimated_usage(request.messages, answers, request.params.get("tools"))
    return Usage(
        prompt_tokens=prompt or estimated.prompt_tokens,
        completion_tokens=completion or estimated.completion_tokens,
        estimated=True,
    )


def _share(total: int, position: int, parts: int) -> int:
    """An equal part of `total`; the first ones take the remainder."""
    return total // parts + (position < total % parts)

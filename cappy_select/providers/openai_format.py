"""Answers and errors in OpenAI's format, as its client and LiteLLM give them, in our words."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from inspect import isawaitable
from typing import Any, NamedTuple

from cappy_select.errors import FailureKind, InputError, ProviderError
from cappy_select.figures import dollars_of, tokens_of
from cappy_select.types import Candidate, Delta, Request, Usage, estimated_usage

# By class name, most specific class first along each exception's own ancestry.
_KINDS: dict[str, FailureKind] = {
    "RateLimitError": "rate_limit",
    "Timeout": "timeout",
    "APITimeoutError": "timeout",
    "AuthenticationError": "auth",
    "PermissionDeniedError": "auth",
    "ContentPolicyViolationError": "content_policy",
    "ContextWindowExceededError": "context_window",
    "APIConnectionError": "connection",
    "APIResponseValidationError": "invalid_response",
    "ServiceUnavailableError": "server",
    "InternalServerError": "server",
    "BadGatewayError": "server",
    "BadRequestError": "bad_request",
    "NotFoundError": "bad_request",
    "UnprocessableEntityError": "bad_request",
}

# OpenAI's `code` of a 400; its wording where a compatible server sends none.
_BAD_REQUESTS: tuple[tuple[FailureKind, re.Pattern[str]], ...] = (
    ("context_window", re.compile(r"context_length_exceeded|maximum context length|context window", re.IGNORECASE)),
    ("content_policy", re.compile(r"content_policy_violation|content_filter|content management policy", re.IGNORECASE)),
)

# LiteLLM wraps a message in the names of its classes: "litellm.RateLimitError: RateLimitError: OpenAIException - "
_WRAPPERS = re.compile(r"^(?:(?:litellm\.)?\w*(?:Error|Exception|Timeout)(?::| -) )+")

_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk)-[\w*.-]{8,}|(?<=Bearer )\S{8,}")
_SHORTEST_KEY = 8  # a shorter one is a placeholder, and would mask parts of words
_KNOWN_FIELDS = {"id", "object", "created", "model", "choices", "usage"}

Cost = Callable[[Usage], float | None]

COMMON = frozenset({"n", "temperature", "top_p", "seed", "max_tokens", "logprobs"})
"""OpenAI's own sampling parameters, and `logprobs`."""


class TokenPrices(NamedTuple):
    """Dollars a token."""

    per_prompt: float
    per_completion: float

    @classmethod
    def given(cls, per_prompt: float | None, per_completion: float | None) -> TokenPrices | None:
        """Both prices, or None for none. Raises InputError for half a price, or one that can't be."""
        for name, price in (("input_cost_per_token", per_prompt), ("output_cost_per_token", per_completion)):
            if price is not None and dollars_of(price) is None:
                raise InputError(f"{name} must be dollars a token, 0 or more, got {price!r:.80}")
        if (per_prompt is None) != (per_completion is None):
            raise InputError("give both input_cost_per_token and output_cost_per_token, or neither")
        return None if per_prompt is None or per_completion is None else cls(per_prompt, per_completion)

    def of(self, usage: Usage) -> float:
        """Dollars for `usage`."""
        return self.per_prompt * usage.prompt_tokens + self.per_completion * usage.completion_tokens


def refuse_seed(params: Mapping[str, Any]) -> None:
    """Raises InputError for a seed among a provider's own parameters."""
    if "seed" in params:
        raise InputError("give the seed to the Selector or its plan: the same one in every call gives one answer")


def candidates_of(response: Any, request: Request, *, model: str, cost_of: Cost) -> list[Candidate]:
    """A candidate for each choice of a response. They share its usage and cost, so that sums are exact.

    Raises ProviderError (`invalid_response`) when there is none.
    """
    choices = getattr(response, "choices", None)
    if not isinstance(choices, list) or not choices or not all(getattr(c, "message", None) for c in choices):
        usage = _usage(request, response, ())
        raise ProviderError(
            "the response has no choices"
            if hasattr(response, "choices")
            else f"the response is no chat completion but {type(response).__name__} {response!r:.80}",
            kind="invalid_response",
            model=model,
            usage=usage,
            cost=cost_of(usage),
        )
    usage = _usage(request, response, choices)
    cost = cost_of(usage)
    others = {name: value for name, value in response.model_dump(mode="json").items() if name not in _KNOWN_FIELDS}
    fields = {name: value for name, value in others.items() if value is not None}
    candidates = []
    for position, choice in enumerate(choices):
        logprobs = _as_dict(getattr(choice, "logprobs", None))
        total, mean = likelihood(logprobs)
        message = choice.message.model_dump(exclude_none=True, mode="json")
        candidates.append(
            Candidate(
                model=model,
                message={"role": "assistant", "content": None} | message,
                finish_reason=choice.finish_reason,
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


async def streamed(
    response: Any, request: Request, *, model: str, api_key: str | None, cost_of: Cost
) -> AsyncGenerator[Delta | Candidate, None]:
    """A streamed response of one choice: its deltas as they come, then the candidate that they make.

    Raises ProviderError, also for a stream that ends before its answer does.
    """
    whole = _Whole()
    try:
        async for chunk in response:
            if delta := whole.add(chunk.model_dump(exclude_none=True, mode="json")):
                yield Delta(message=delta)
    except Exception as error:
        raise failure_of(error, model=model, api_key=api_key) from None
    finally:
        closing = (getattr(response, "aclose", None) or response.close)()
        if isawaitable(closing):
            await closing
    if whole.broke_off:
        raise ProviderError("the stream ended before the answer did", kind="connection", model=model)
    (candidate,) = candidates_of(whole.response(), request, model=model, cost_of=cost_of)
    yield candidate


class _Whole:
    """The chunks of a stream, put together."""

    def __init__(self) -> None:
        self._response: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._choice: dict[str, Any] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Take a chunk in; its delta, without what is empty."""
        choices = chunk.pop("choices", ())
        self._response |= chunk
        for choice in choices:
            if choice.get("index"):  # more answers than were asked for
                continue
            delta = choice.pop("delta", None) or {}
            for name, tokens in (choice.pop("logprobs", None) or {}).items():
                self._logprobs.setdefault(name, []).extend(tokens)
            self._choice |= choice
            self._add_delta(delta)
            return {name: value for name, value in delta.items() if value not in (None, "", [])}
        return {}

    @property
    def broke_off(self) -> bool:
        """There was a choice, and nobody said why it ended."""
        return bool(self._choice or self._message or self._calls) and self._choice.get("finish_reason") is None

    def _add_delta(self, delta: Mapping[str, Any]) -> None:
        for name, value in delta.items():
            known: Any = self._message.get(name)
            if name == "tool_calls":
                for call in value:
                    self._add_call(call)
            elif name != "role" and type(known) is type(value) and type(known) in (str, list):
                self._message[name] = known + value
            else:
                self._message[name] = value

    def _add_call(self, piece: dict[str, Any]) -> None:
        if piece.get("index") is None:  # some servers leave it out: a new id is a new call
            begins = not self._calls or (piece.get("id") and piece["id"] != self._calls[max(self._calls)].get("id"))
            piece["index"] = len(self._calls) if begins else max(self._calls)
        call = self._calls.setdefault(int(piece["index"]), {"type": "function", "function": {"arguments": ""}})
        call |= {name: value for name, value in piece.items() if value and name not in ("index", "function")}
        function = piece.get("function") or {}
        call["function"] |= {name: value for name, value in function.items() if value and name != "arguments"}
        call["function"]["arguments"] += function.get("arguments") or ""

    def response(self) -> Any:
        """As OpenAI's client gives a response that was not streamed."""
        from openai.types.chat import ChatCompletion

        message = {"role": "assistant", "content": None} | self._message
        if self._calls:
            message["tool_calls"] = [call for _, call in sorted(self._calls.items())]
        choice = {"index": 0, "finish_reason": None} | self._choice | {"message": message}
        choice["logprobs"] = self._logprobs or None
        choices = [choice] if self._choice or self._message or self._calls else []
        return ChatCompletion.construct(**self._response | {"object": "chat.completion", "choices": choices})


def likelihood(logprobs: dict[str, Any] | None) -> tuple[float | None, float | None]:
    """Sum and mean of the tokens' log-probabilities (natural); None where there are none."""
    try:
        values = [float(token["logprob"]) for token in (logprobs or {}).get("content") or ()]
    except (TypeError, KeyError, ValueError):  # a compatible server's own format
        return None, None
    return (sum(values), sum(values) / len(values)) if values else (None, None)


def failure_of(error: Exception, *, model: str, api_key: str | None, secrets: Collection[str] = ()) -> ProviderError:
    """What went wrong, in our words and without secrets."""
    message = str(getattr(error, "message", "") or error) or type(error).__name__
    return ProviderError(
        _without_secrets(message, (api_key, *secrets)),
        kind=_kind(error),
        model=model,
        retry_after_s=_retry_after(error),
    )


def _usage(request: Request, response: Any, choices: Sequence[Any]) -> Usage:
    reported = getattr(response, "usage", None)
    prompt = tokens_of(getattr(reported, "prompt_tokens", None) or 0)
    completion = tokens_of(getattr(reported, "completion_tokens", None) or 0)
    if prompt is not None and completion is not None and (prompt or completion):
        return Usage(prompt_tokens=prompt, completion_tokens=completion)
    answers = [choice.message.model_dump() for choice in choices]
    return estimated_usage(request.messages, answers, request.params.get("tools"))


def _without_secrets(text: str, secrets: Collection[str | None]) -> str:
    """The message for a log: no key of this provider or of the environment, no wrappers, not endless."""
    keys = [value for name, value in os.environ.items() if name.endswith(("_API_KEY", "_TOKEN", "_SECRET"))]
    for key in (*secrets, *keys):
        if key and len(key) >= _SHORTEST_KEY:
            text = text.replace(key, "***")
    text = _KEY_LIKE.sub("***", " ".join(text[:10_000].split()))
    return _WRAPPERS.sub("", text)[:500]


def _share(total: int, position: int, parts: int) -> int:
    """An equal part of `total`; the first ones take the remainder."""
    return total // parts + (position < total % parts)


def _as_dict(value: Any) -> dict[str, Any] | None:
    if value is None or isinstance(value, dict):
        return value
    dumped: dict[str, Any] = value.model_dump(mode="json")
    return dumped


def _kind(error: Exception) -> FailureKind:
    kind = next((_KINDS[base.__name__] for base in type(error).__mro__ if base.__name__ in _KINDS), None)
    status = getattr(error, "status_code", None)
    code = getattr(error, "code", None)
    if status is None and str(code).isdecimal():  # an error object in a stream has no status of its own
        status = int(code)  # type: ignore[arg-type]
        kind = None
    if kind is None and isinstance(status, int):
        by_status: dict[int, FailureKind] = {401: "auth", 403: "auth", 408: "timeout", 429: "rate_limit"}
        kind = by_status.get(status) or ("server" if status >= 500 else "bad_request")
    if kind == "bad_request":
        said = f"{getattr(error, 'code', '')} {error}"
        return next((better for better, pattern in _BAD_REQUESTS if pattern.search(said)), kind)
    inner = {base.__name__ for link in _chain(error) for base in type(link).__mro__}
    if kind is None or kind == "server":
        # LiteLLM calls a lost connection and an unreadable body a 500; what it caught tells them apart.
        if "JSONDecodeError" in inner or "Empty or invalid response from LLM endpoint" in str(error):
            return "invalid_response"
        if inner & {"APIConnectionError", "TransportError"}:
            return "connection"
        if "missing credentials" in str(error).lower() or "api_key client option must be set" in str(error):
            return "auth"  # the OpenAI client's plain error for a missing key, by its two wordings
    return kind or "invalid_response"


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _retry_after(error: Exception) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3), in either of its forms."""
    for headers in (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    ):
        value = str((headers or {}).get("retry-after", ""))
        try:
            return max(0.0, float(value))
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, TypeError):
            continue
    return None

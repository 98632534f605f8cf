"""Any model LiteLLM can call, one call at a time.

LiteLLM's own retries are off (a retry belongs to the fan-out, which knows the deadline) and every call has
an explicit timeout (LiteLLM's default is 6000 s).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from typing import Any

from cappy_select.errors import FailureKind, InputError, ProviderError
from cappy_select.types import Candidate, Request, Usage, estimated_usage

# By class name, most specific class first along each exception's own ancestry.
_KINDS: dict[str, FailureKind] = {
    "RateLimitError": "rate_limit",
    "Timeout": "timeout",
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


# LiteLLM wraps a message in the names of its classes: "litellm.RateLimitError: RateLimitError: OpenAIException - "
_WRAPPERS = re.compile(r"^(?:(?:litellm\.)?\w*(?:Error|Exception|Timeout)(?::| -) )+")

_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk)-[\w*.-]{8,}|(?<=Bearer )\S{8,}")
_SHORTEST_KEY = 8  # a shorter one is a placeholder, and would mask parts of words
_KNOWN_FIELDS = {"id", "object", "created", "model", "choices", "usage"}


class LiteLLMProvider:
    """A model by its LiteLLM name. Importing LiteLLM (about 2 s) happens when the first one is made.

    Args:
        model: A LiteLLM model name with its provider, such as `openai/gpt-5-mini`.
        api_key: The key; default the provider's own environment variable.
        api_base: The address of an OpenAI-compatible server.
        input_cost_per_token, output_cost_per_token: Dollars; for models LiteLLM has no price for.
        **params: Passed with every call (temperature, max_tokens, ...); a request's own parameters win.

    Raises InputError when LiteLLM knows no provider for the name.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        api_base: str | None = None,
        input_cost_per_token: float | None = None,
        output_cost_per_token: float | None = None,
        **params: Any,
    ) -> None:
        if (input_cost_per_token is None) != (output_cost_per_token is None):
            raise InputError("give both input_cost_per_token and output_cost_per_token, or neither")
        self._litellm = _import_litellm()
        try:
            self._litellm.get_llm_provider(model, api_base=api_base)
        except self._litellm.exceptions.BadRequestError as error:
            raise InputError(
                f"LiteLLM knows no provider for the model {model!r}: write it with its provider, "
                "such as 'openai/gpt-5-mini'"
            ) from error
        self._model, self._api_key, self._api_base, self._params = model, api_key, api_base, params
        # Not handed to LiteLLM, which would write them into its global price list.
        self._prices = input_cost_per_token, output_cost_per_token

    @property
    def model(self) -> str:
        """The LiteLLM model name."""
        return self._model

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r})"  # never the key

    async def complete(self, request: Request) -> list[Candidate]:
        """One `litellm.acompletion` call."""
        params = {**self._params, **request.params}
        if request.n > 1:
            params["n"] = request.n
        if "tools" in params:
            params |= _without_mcp()
        try:
            response = await self._litellm.acompletion(
                model=self._model,
                messages=deepcopy(list(request.messages)),  # LiteLLM may change them, and calls share them
                api_key=self._api_key,
                api_base=self._api_base,
                timeout=request.timeout_s,
                num_retries=0,
                max_retries=0,
                **params,
            )
        except Exception as error:  # LiteLLM also passes on what its HTTP layers raise
            raise self._failure(error) from error
        return self._candidates(request, response)

    def price(self, usage: Usage) -> float | None:
        """Dollars by LiteLLM's price list, or by the prices given at construction."""
        per_prompt, per_completion = self._prices
        if per_prompt is not None and per_completion is not None:
            return per_prompt * usage.prompt_tokens + per_completion * usage.completion_tokens
        try:
            costs = self._litellm.cost_per_token(
                model=self._model,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
            )
        except Exception:  # LiteLLM has no price for it, and says so in several ways
            return None
        return float(sum(costs))

    def _candidates(self, request: Request, response: Any) -> list[Candidate]:
        choices = getattr(response, "choices", None)
        if not choices:
            usage = self._usage(request, response, ())
            raise ProviderError(
                "the response has no choices",
                kind="invalid_response",
                model=self._model,
                usage=usage,
                cost=self._cost(response, usage),
            )
        usage = self._usage(request, response, choices)
        cost = self._cost(response, usage)
        others = {name: value for name, value in response.model_dump(mode="json").items() if name not in _KNOWN_FIELDS}
        return [
            Candidate(
                model=self._model,
                message={"role": "assistant", "content": None}
                | choice.message.model_dump(exclude_none=True, mode="json"),
                finish_reason=choice.finish_reason,
                usage=Usage(
                    prompt_tokens=_share(usage.prompt_tokens, position, len(choices)),
                    completion_tokens=_share(usage.completion_tokens, position, len(choices)),
                    estimated=usage.estimated,
                ),
                cost=None if cost is None else cost / len(choices),
                logprobs=_as_dict(getattr(choice, "logprobs", None)),
                response_fields={name: value for name, value in others.items() if value is not None},
            )
            for position, choice in enumerate(choices)
        ]

    def _usage(self, request: Request, response: Any, choices: Sequence[Any]) -> Usage:
        reported = getattr(response, "usage", None)
        prompt = int(getattr(reported, "prompt_tokens", 0) or 0)
        completion = int(getattr(reported, "completion_tokens", 0) or 0)
        if prompt or completion:
            return Usage(prompt_tokens=prompt, completion_tokens=completion)
        answers = [choice.message.model_dump() for choice in choices]
        return estimated_usage(request.messages, answers, request.params.get("tools"))

    def _cost(self, response: Any, usage: Usage) -> float | None:
        if self._prices[0] is not None:
            return self.price(usage)
        cost = (getattr(response, "_hidden_params", None) or {}).get("response_cost")
        # LiteLLM reports 0 for a model without a price as well as for a free one: ask its list which it is.
        return float(cost) if cost else self.price(usage)

    def _failure(self, error: Exception) -> ProviderError:
        return ProviderError(
            self._without_secrets(str(getattr(error, "message", "") or error) or type(error).__name__),
            kind=_kind(error),
            model=self._model,
            retry_after_s=_retry_after(error),
        )

    def _without_secrets(self, text: str) -> str:
        """The message for a log: no key of this provider or of the environment, no wrappers, not endless."""
        keys = [value for name, value in os.environ.items() if name.endswith(("_API_KEY", "_TOKEN", "_SECRET"))]
        for key in (self._api_key, *keys):
            if key and len(key) >= _SHORTEST_KEY:
                text = text.replace(key, "***")
        text = _KEY_LIKE.sub("***", " ".join(text.split()))
        return _WRAPPERS.sub("", text)[:500]


def _import_litellm() -> Any:
    # Read at LiteLLM's import: keeps it from fetching its price list from the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.suppress_debug_info = True  # it prints advice to the terminal on every error otherwise
    return litellm


@cache
def _without_mcp() -> dict[str, Any]:
    """LiteLLM's MCP gateway imports `mcp`, which it does not depend on, as soon as a call has tools."""
    if find_spec("mcp") is None and find_spec("litellm.responses.mcp.chat_completions_handler") is not None:
        return {"_skip_mcp_handler": True}
    return {}


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
    if kind is None and isinstance(status, int):
        by_status: dict[int, FailureKind] = {401: "auth", 403: "auth", 408: "timeout", 429: "rate_limit"}
        kind = by_status.get(status) or ("server" if status >= 500 else "bad_request")
    if kind == "server":
        # LiteLLM calls a lost connection and an unreadable body a 500; what it caught tells them apart.
        inner = {base.__name__ for link in _chain(error) for base in type(link).__mro__}
        if "JSONDecodeError" in inner:
            return "invalid_response"
        if "APIConnectionError" in inner:
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
    """Seconds of a Retry-After header (RFC 9110, 10.2.3); its date form is not read."""
    for headers in (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    ):
        try:
            return max(0.0, float((headers or {}).get("retry-after", "")))
        except ValueError:
            continue
    return None

"""Our errors as LiteLLM's: each has the HTTP status that a proxy answers with, and says what a Router may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from litellm import exceptions

from cappy_select import (
    CappyError,
    InputError,
    NoCandidates,
    NoGoodAnswer,
    ProviderError,
)
from cappy_select.core import (
    RETRYABLE,
    FailureKind,
)

_Make = Callable[..., Exception]

_BY_KIND: dict[FailureKind, _Make] = {
    "rate_limit": exceptions.RateLimitError,
    "timeout": exceptions.Timeout,
    "auth": exceptions.AuthenticationError,
    "content_policy": exceptions.ContentPolicyViolationError,
    "context_window": exceptions.ContextWindowExceededError,
    "bad_request": exceptions.BadRequestError,
    "budget": exceptions.BadRequestError,  # the request is too long for the preset's max_cost: so is the next try
    "invalid_response": exceptions.BadGatewayError,
}


def as_litellm_error(error: CappyError, model: str) -> Exception:
    """The LiteLLM exception for one of ours.

    All calls failed alike: the exception of that failure. They failed in several ways: 503, if another try may
    help, else 502.
    """
    made = _exception_for(error)
    details: dict[str, Any] = {"message": str(error), "model": model, "llm_provider": "cappy"}
    if made is exceptions.UnprocessableEntityError:
        details["response"] = httpx.Response(422, request=httpx.Request("POST", "https://cappy.invalid"))
    return made(**details)


def _exception_for(error: CappyError) -> _Make:
    if isinstance(error, InputError):
        return exceptions.BadRequestError
    if isinstance(error, NoGoodAnswer):
        return exceptions.UnprocessableEntityError
    if not isinstance(error, NoCandidates):
        return exceptions.InternalServerError
    kinds = {failure.kind for failure in error.exceptions if isinstance(failure, ProviderError)}
    kinds = kinds - {"cancelled", "unavailable"} or {"server"}  # what was not asked says nothing about the request
    if len(kinds) == 1:
        return _BY_KIND.get(kinds.pop(), exceptions.ServiceUnavailableError)
    return exceptions.ServiceUnavailableError if kinds & RETRYABLE else exceptions.BadGatewayError

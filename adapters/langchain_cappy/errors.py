"""`NoCandidates` in LangChain's words: when all calls failed alike, it is LangChain's own error for that as well.

So `with_fallbacks(exceptions_to_handle=(ModelRateLimitError,))` and the like work as with any other chat model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelRateLimitError,
    ModelTimeoutError,
)

from cappy_select import (
    NoCandidates,
    ProviderError,
)
from cappy_select.ask import (
    failure_from,
)
from cappy_select.core import (
    FailureKind,
)


class AllRateLimited(ModelRateLimitError, NoCandidates):
    """Every call was refused for its rate."""


class AllTimedOut(ModelTimeoutError, NoCandidates):
    """No call ended in time."""


class AllUnauthenticated(ModelAuthenticationError, NoCandidates):
    """Every key was refused."""


class AllUnreachable(ModelConnectionError, NoCandidates):
    """No model could be reached."""


class AllFailed(ModelAPIError, NoCandidates):
    """Every server failed."""


class AllRefused(ModelInvalidRequestError, NoCandidates):
    """Every model took the request for a bad one."""


class AllTooLong(ContextOverflowError, NoCandidates):
    """The prompt fits no model's window."""


_BY_KIND: dict[FailureKind, type[NoCandidates]] = {
    "rate_limit": AllRateLimited,
    "timeout": AllTimedOut,
    "auth": AllUnauthenticated,
    "connection": AllUnreachable,
    "server": AllFailed,
    "bad_request": AllRefused,
    "context_window": AllTooLong,
}

KINDS: dict[type[Exception], FailureKind] = {
    next(base for base in error.__bases__ if base is not NoCandidates): kind for kind, error in _BY_KIND.items()
}
"""LangChain's errors in our words."""


_PLAIN: tuple[tuple[type[Exception], FailureKind], ...] = ((TimeoutError, "timeout"), (ConnectionError, "connection"))


def kind_of(error: BaseException) -> FailureKind | None:
    """How a LangChain model failed, as far as LangChain's own errors, Python's or a reply's status say it; of a group
    what all of it have in common. None: the error's own class and words must tell."""
    if isinstance(error, BaseExceptionGroup) and not isinstance(error, NoCandidates):
        kinds = {kind_of(inner) for inner in error.exceptions}
        return kinds.pop() if len(kinds) == 1 else None
    if isinstance(error, ProviderError):
        return error.kind
    known = (*KINDS.items(), *_PLAIN)
    if kind := next((kind for base, kind in known if isinstance(error, base)), None):
        return kind
    status = None if getattr(error, "status_code", None) else _status_of(getattr(error, "response", None))
    return None if status is None else failure_from({"status": status, "message": str(error)}, model="").kind


def _status_of(response: Any) -> int | None:
    """Of a reply of httpx or requests (Mistral, Hugging Face), or of botocore's (AWS)."""
    if isinstance(response, Mapping):
        inner = response.get("ResponseMetadata")
        said = inner.get("HTTPStatusCode") if isinstance(inner, Mapping) else None
        named = response.get("Error")
        if isinstance(named, Mapping) and "throttl" in str(named.get("Code")).lower():
            return 429
    else:
        said = getattr(response, "status_code", None)
    return said if isinstance(said, int) and 400 <= said <= 599 else None


@contextmanager
def langchains_own() -> Iterator[None]:
    """Makes a `NoCandidates` LangChain's error of the same meaning, where its failures are all of one kind."""
    try:
        yield
    except NoCandidates as error:
        failures = [failure for failure in error.exceptions if isinstance(failure, ProviderError)]
        kinds = {failure.kind for failure in failures}
        own = _BY_KIND.get(kinds.pop()) if len(kinds) == 1 else None
        if own is None:
            raise
        raise own(error.message, failures, usage=error.usage, cost=error.cost) from None

"""`NoCandidates` in LangChain's words: when all calls failed alike, it is LangChain's own error for that as well.

So `with_fallbacks(exceptions_to_handle=(ModelRateLimitError,))` and the like work as with any other chat model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelRateLimitError,
    ModelTimeoutError,
)

from cappy_select import NoCandidates, ProviderError
from cappy_select.errors import FailureKind


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

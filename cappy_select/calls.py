"""One upstream call: what it asks, what it cost, when it is made again."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

from tenacity import RetryCallState, wait_random_exponential

from cappy_select.errors import FailureKind, ProviderError
from cappy_select.lanes import Lane
from cappy_select.providers import Priced, Provider
from cappy_select.providers.failures import without_places
from cappy_select.sampling import Sampling
from cappy_select.types import Candidate, Request, Usage, estimated_usage, response_text

_PERHAPS_BILLED = frozenset({"timeout", "connection", "invalid_response"})  # the request was read, the answer lost


@dataclass(frozen=True)
class Call:
    """One upstream call to make, for `request.n` answers sampled in this way."""

    provider: Provider
    request: Request
    lane: Lane = field(default_factory=lambda: Lane(100, 5, 30.0))
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class Bill:
    """Tokens, and dollars or None when a price is unknown."""

    usage: Usage
    cost: float | None


def checked(answers: list[Candidate], call: Call) -> list[Candidate]:
    """What a provider returned, if it is what it must be. Raises ProviderError (`invalid_response`)."""
    if not isinstance(answers, list) or not all(isinstance(answer, Candidate) for answer in answers):
        raise error_of(call, "invalid_response", f"the provider must return a list of Candidate, not {answers!r:.80}")
    if not answers:
        raise error_of(call, "invalid_response", "the provider returned no answer")
    return answers


def error_of(call: Call, kind: FailureKind, message: str) -> ProviderError:
    """A failure of this call."""
    return ProviderError(without_places(message), kind=kind, model=str(call.provider.model))


_backoff = wait_random_exponential(multiplier=0.25, max=8.0)


def wait_before_retry(state: RetryCallState) -> float:
    """The provider's own Retry-After where it gave one, else jittered exponential back-off."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ProviderError) and error.retry_after_s is not None:
        # A little later, each at its own time: calls that were refused together must not come back together.
        return error.retry_after_s * random.uniform(1.0, 1.1) + random.uniform(0.0, 0.1)  # noqa: S311
    return _backoff(state)


def bill_of(call: Call, error: ProviderError) -> Bill:
    """What a failed attempt cost: what it says; an estimate if it was perhaps worked on; else nothing."""
    if error.usage is not None:
        return Bill(error.usage, error.cost)
    return estimated_bill(call) if error.kind in _PERHAPS_BILLED else Bill(Usage(), 0.0)


def estimated_bill(call: Call) -> Bill:
    """A lower bound for an attempt that reported nothing: its prompt was read, what it wrote is unknown."""
    usage = estimated_usage(call.request.messages, tools=call.request.params.get("tools"))
    return Bill(usage, price_of(call.provider, usage))


def price_of(provider: Provider, usage: Usage) -> float | None:
    """Dollars for `usage`; None when the provider does not know."""
    try:
        return provider.price(usage) if isinstance(provider, Priced) else None
    except Exception:  # a provider's defect, and a price that is not known
        return None


def highest_price(call: Call) -> float:
    """Dollars of a call at most, if `max_tokens` bounds its answers; else those of its prompt."""
    request, params = call.request, call.request.params
    most = max(int(params.get(name) or 0) for name in ("max_tokens", "max_completion_tokens"))
    usage = Usage(prompt_tokens=_most_prompt_tokens(call), completion_tokens=request.n * most)
    return price_of(call.provider, usage) or 0.0


def _most_prompt_tokens(call: Call) -> int:
    """A bound: no token is shorter than a byte. Content that is not text is not counted."""
    texts = "".join(response_text(message) for message in call.request.messages)
    schemas = [call.request.params.get(name) or "" for name in ("tools", "functions", "response_format")]
    return len((texts + "".join(json.dumps(schema, default=str) for schema in schemas)).encode(errors="replace"))

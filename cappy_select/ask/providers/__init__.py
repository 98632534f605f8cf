"""Who answers: a `Provider` makes one upstream call. Which calls to make is the fan-out's business."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from cappy_select.ask.providers.litellm import LiteLLMProvider
from cappy_select.ask.providers.openai import OpenAIProvider
from cappy_select.ask.providers.replay import ReplayProvider
from cappy_select.ask.providers.transformers import TransformersProvider
from cappy_select.core.errors import InputError
from cappy_select.core.types import Candidate, Delta, Message, Request, Usage

__all__ = [
    "Bounding",
    "Declaring",
    "Guarding",
    "LiteLLMProvider",
    "OpenAIProvider",
    "Priced",
    "Provider",
    "ReplayProvider",
    "Streaming",
    "TransformersProvider",
    "Windowed",
    "as_providers",
]


@runtime_checkable
class Provider(Protocol):
    """One model, or one thing that answers like a model. `model` is its name in candidates and failures."""

    @property
    def model(self) -> str: ...

    async def complete(self, request: Request) -> list[Candidate]:
        """Make one upstream call for `request`, for at most `request.n` answers.

        Usage and cost of the call are divided among the candidates, so that they add up. Raises
        ProviderError; must not swallow `asyncio.CancelledError`.
        """
        ...


@runtime_checkable
class Streaming(Protocol):
    """A provider that can give an answer in pieces, as they come."""

    def stream(self, request: Request) -> AsyncGenerator[Delta | Candidate, None]:
        """`complete` for one answer: its pieces, then the whole of it. Raises ProviderError."""
        ...


@runtime_checkable
class Priced(Protocol):
    """A provider that knows its prices, so that a call that never answered can be priced too."""

    def price(self, usage: Usage) -> float | None:
        """Dollars for `usage`; None when the price is unknown."""
        ...


@runtime_checkable
class Bounding(Protocol):
    """A provider that knows what a call of it costs at most, with its own parameters and at its dearest tariff."""

    def highest_price(self, request: Request) -> float | None:
        """Dollars at most, if the answers have a limit of tokens; else those of the prompt. None when unknown."""
        ...


@runtime_checkable
class Declaring(Protocol):
    """A provider that says what it can't do; any other is taken to honour all parameters but `n`."""

    def refused(self, params: Mapping[str, Any]) -> Collection[str]:
        """Which of these it can't honour: sampling parameters by name, `n`, `logprobs`."""
        ...


@runtime_checkable
class Guarding(Protocol):
    """A provider whose client library acts upon some parameters itself: where to ask, with which key, at what price."""

    def acted_upon(self, params: Mapping[str, Any]) -> Collection[str]:
        """Which of these it would act upon: they never come from a caller."""
        ...


@runtime_checkable
class Windowed(Protocol):
    """A provider that knows how long a prompt may be, so that in-context examples are fitted into it."""

    def max_prompt_tokens(self, max_tokens: int | None) -> int | None:
        """Tokens that a prompt may have when the answer may have `max_tokens`; None when unknown."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """A prompt's length in the model's tokens."""
        ...


def as_providers(
    models: Sequence[str | Provider], *, api_key: str | None = None, api_base: str | None = None
) -> list[Provider]:
    """Providers for model names, or providers as they are.

    A name is LiteLLM's (`anthropic/claude-haiku-4-5`), or `openai:MODEL` (OpenAI's own client, LiteLLM not in
    the path), `transformers:PATH` (a local model), `replay:FILE[#MODEL]` (recorded answers).

    Key and address go to the models that are given by their LiteLLM name. Raises InputError when a key would
    go to several vendors, or nowhere.
    """
    if isinstance(models, str) or not isinstance(models, Iterable) or not (given := list(models)):
        raise InputError(f"models must be a non-empty list of model names or providers, got {models!r}")
    for model in given:
        if not isinstance(model, str | Provider) or isinstance(model, type):
            raise InputError(
                "a model is a name such as 'openai/gpt-5-mini' or an object with `model` and `complete`, "
                f"got {type(model).__name__}"
            )
    named = [model for model in given if isinstance(model, str) and not model.startswith(_KEYLESS)]
    vendors = sorted({"openai" if name.startswith(_OPENAI) else name.partition("/")[0] for name in named})
    if api_key is not None and api_base is None and len(vendors) > 1:
        raise InputError(
            f"one api_key can't serve {' and '.join(vendors)}: use each provider's environment variable, or "
            "LiteLLMProvider(model, api_key=...)"
        )
    if (api_key is not None or api_base is not None) and not named:
        raise InputError("api_key and api_base are for models given by name, and there are none")
    return [_as_provider(model, api_key, api_base) for model in given]


_OPENAI, _LOCAL, _REPLAY = "openai:", "transformers:", "replay:"
_KEYLESS = (_LOCAL, _REPLAY)


def _as_provider(model: str | Provider, api_key: str | None, api_base: str | None) -> Provider:
    if not isinstance(model, str):
        return model
    if model.startswith(_REPLAY):
        file, _, name = model.removeprefix(_REPLAY).partition("#")
        return ReplayProvider(file, name or None)
    if model.startswith(_LOCAL):
        return TransformersProvider(model.removeprefix(_LOCAL))
    if model.startswith(_OPENAI):
        return OpenAIProvider(model.removeprefix(_OPENAI), api_key=api_key, api_base=api_base)
    return LiteLLMProvider(model, api_key=api_key, api_base=api_base)

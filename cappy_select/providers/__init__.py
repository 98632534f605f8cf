"""Who answers: a `Provider` makes one upstream call. Which calls to make is the fan-out's business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from cappy_select.errors import InputError
from cappy_select.providers.litellm import LiteLLMProvider
from cappy_select.providers.replay import ReplayProvider
from cappy_select.types import Candidate, Request, Usage

__all__ = ["LiteLLMProvider", "Priced", "Provider", "ReplayProvider", "as_providers"]


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
class Priced(Protocol):
    """A provider that knows its prices, so that a call that never answered can be priced too."""

    def price(self, usage: Usage) -> float | None:
        """Dollars for `usage`; None when the price is unknown."""
        ...


def as_providers(
    models: Sequence[str | Provider],
    *,
    api_key: str | None = None,
    api_base: str | None = None,
    params: Mapping[str, Any] | None = None,
) -> list[Provider]:
    """Providers for LiteLLM model names (`openai/gpt-5-mini`), `replay:FILE[#MODEL]`, or providers.

    Key, address and parameters go to every model that is given by its name.
    """
    if isinstance(models, str) or not models:
        raise InputError(f"models must be a non-empty list of model names or providers, got {models!r}")
    providers: list[Provider] = []
    for model in models:
        if not isinstance(model, str):
            if not isinstance(model, Provider):
                raise InputError(
                    f"a model is a name such as 'openai/gpt-5-mini' or an object with `model` and `complete`, "
                    f"got {type(model).__name__}"
                )
            providers.append(model)
        elif model.startswith("replay:"):
            file, _, name = model.removeprefix("replay:").partition("#")
            providers.append(ReplayProvider(file, name or None))
        else:
            providers.append(LiteLLMProvider(model, api_key=api_key, api_base=api_base, **(params or {})))
    return providers

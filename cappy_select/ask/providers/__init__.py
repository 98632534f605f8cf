"""Who answers: a `Provider` makes one upstream call. Which calls to make is the fan-out's business."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from cappy_select.ask.providers.capabilities import Capabilities
from cappy_select.ask.providers.litellm import LiteLLMProvider
from cappy_select.ask.providers.openai import OpenAIProvider
from cappy_select.ask.providers.replay import ReplayProvider
from cappy_select.ask.providers.transformers import TransformersProvider
from cappy_select.core.errors import InputError
from cappy_select.core.types import Candidate, Request

__all__ = [
    "Capabilities",
    "LiteLLMProvider",
    "OpenAIProvider",
    "Provider",
    "ReplayProvider",
    "TransformersProvider",
    "as_providers",
]


@runtime_checkable
class Provider(Protocol):
    """One model, or one thing that answers like a model. `model` is its name in candidates and failures.

    What else it can do, `Capabilities` lists.
    """

    @property
    def model(self) -> str:
        """The model's name, in candidates and failures."""
        ...

    async def complete(self, request: Request) -> list[Candidate]:
        """Make one upstream call for `request`, for at most `request.n` answers.

        It must not swallow `asyncio.CancelledError`.

        Args:
            request: What to ask, and for how long.

        Returns:
            The answers. Usage and cost of the call are divided among them, so that they add up.

        Raises:
            ProviderError: the call failed; its kind says whether it is worth a retry.
        """
        ...


def as_providers(
    models: Sequence[str | Provider], *, api_key: str | None = None, api_base: str | None = None
) -> list[Provider]:
    """Providers for model names, or providers as they are.

    A name is LiteLLM's (`anthropic/claude-haiku-4-5`), or `openai:MODEL` (OpenAI's own client, LiteLLM not in the
    path), `transformers:PATH` (a local model), `replay:FILE[#MODEL]` (recorded answers).

    Args:
        models: Names and providers, mixed as one likes; at least one.
        api_key: The key of the models that are given by the name of LiteLLM's or as `openai:MODEL`; default each
            vendor's environment variable.
        api_base: The address of those models' server; default each vendor's own.

    Returns:
        A provider for each model, in their order.

    Raises:
        InputError: `models` is empty or holds anything else, a key would go to several vendors, a key or an address
            would go nowhere, or a provider can't be made.
        MissingExtra: a local model needs a package that is not installed.
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

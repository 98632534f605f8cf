"""`CappyLLM`: a LiteLLM custom provider around named selectors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cappy_select import CappyError, InputError, Selection, Selector

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no network at LiteLLM's import

import litellm
from litellm.llms.custom_llm import CustomLLM, CustomLLMError
from litellm.types.utils import Choices, Message, ModelResponse, Usage


class CappyLLM(CustomLLM):
    """Answers `cappy/<preset>` with the selector of that name.

    The response's usage counts all calls. Its `_hidden_params` carry LiteLLM's `response_cost` (dollars over
    all calls, absent when a price is unknown) and `cappy_score`, the winner's raw score.
    """

    def __init__(self, presets: Mapping[str, Selector]) -> None:
        super().__init__()
        for name, selector in presets.items():
            if not isinstance(selector, Selector):
                raise InputError(f"the preset {name!r} must be a Selector, got {type(selector).__name__}")
        self._presets = dict(presets)

    def completion(  # type: ignore[override]
        self, model: str, messages: list[Any], model_response: ModelResponse, optional_params: dict[str, Any], **_: Any
    ) -> ModelResponse:
        """`litellm.completion`; the other arguments of the seam carry nothing for a fan-out."""
        try:
            selection = self._preset(model).select(messages, **_params(optional_params))
        except CappyError as error:
            raise _as_litellm_error(error) from error
        return _fill(model_response, f"cappy/{model}", selection)

    async def acompletion(  # type: ignore[override]
        self, model: str, messages: list[Any], model_response: ModelResponse, optional_params: dict[str, Any], **_: Any
    ) -> ModelResponse:
        """`litellm.acompletion`."""
        try:
            selection = await self._preset(model).aselect(messages, **_params(optional_params))
        except CappyError as error:
            raise _as_litellm_error(error) from error
        return _fill(model_response, f"cappy/{model}", selection)

    def _preset(self, name: str) -> Selector:
        if name not in self._presets:
            known = ", ".join(f"cappy/{preset}" for preset in sorted(self._presets))
            raise CustomLLMError(404, f"there is no preset 'cappy/{name}'; there is {known}")
        return self._presets[name]


def _params(optional_params: Mapping[str, Any]) -> dict[str, Any]:
    """What of LiteLLM's parameters goes to the models. Its Router adds its own; the selector has its limits."""
    return {
        name: value
        for name, value in optional_params.items()
        if name not in _LITELLMS_OWN and (name, value) not in _DEFAULTS
    }


_LITELLMS_OWN = {"max_retries", "num_retries", "timeout", "request_timeout"}
_DEFAULTS = [("n", 1), ("n", None), ("stream", False), ("stream", None)]


def register(presets: Mapping[str, Selector]) -> CappyLLM:
    """Make `litellm.completion(model="cappy/<name>", ...)` ask these selectors.

    Replaces an earlier registration; other custom providers stay.
    """
    handler = CappyLLM(presets)
    others = [item for item in litellm.custom_provider_map if item["provider"] != "cappy"]
    litellm.custom_provider_map = [*others, {"provider": "cappy", "custom_handler": handler}]
    litellm.utils.custom_llm_setup()
    return handler


def _fill(response: ModelResponse, model: str, selection: Selection) -> ModelResponse:
    response.model = model
    response.choices = [
        Choices(
            index=0,
            finish_reason=selection.best.finish_reason or "stop",
            message=Message(**selection.best.message),
        )
    ]
    usage = selection.usage
    response.usage = Usage(  # type: ignore[attr-defined]
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )
    response._hidden_params["cappy_score"] = selection.best.score
    if selection.cost is not None:
        response._hidden_params["response_cost"] = selection.cost
    return response


def _as_litellm_error(error: CappyError) -> CustomLLMError:
    ours = isinstance(error, InputError)  # the caller's doing
    return CustomLLMError(400 if ours else 502, str(error))

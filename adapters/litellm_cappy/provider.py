"""`CappyLLM`: a LiteLLM custom provider around named selectors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import litellm
from litellm.exceptions import NotFoundError
from litellm.llms.custom_llm import CustomLLM
from litellm.types.utils import GenericStreamingChunk, ModelResponse

from cappy_select import (
    CappyError,
    InputError,
    Selector,
)
from cappy_select.ask import (
    litellms_own as names,
)
from litellm_cappy.errors import as_litellm_error
from litellm_cappy.presets import load_presets
from litellm_cappy.responses import Chunks, fill


class CappyLLM(CustomLLM):
    """Answers `cappy/<preset>` with the selector of that name.

    The response is the winner's. Its usage and `response_cost` are those of all calls together; its field `cappy` says
    what was weighed (score, model, candidates, failures), and so does `_hidden_params["cappy"]`. In a stream the last
    chunk with a delta has it.

    A caller's `timeout`, `num_retries`, `api_key` and `api_base` are not used: the selector has its own. What else
    LiteLLM acts upon itself never reaches the models' calls: it is left out where LiteLLM puts it among the parameters,
    and a bad request where a caller does, in an `extra_body`.

    Errors are LiteLLM's: that of the calls when all failed alike, `BadRequestError` for bad input, `NotFoundError` for
    a preset that there is not, `UnprocessableEntityError` where no answer is good enough.

    Args:
        presets: Selectors by name.

    Raises:
        InputError: it is no mapping, or a preset is no Selector.
    """

    def __init__(self, presets: Mapping[str, Selector]) -> None:
        super().__init__()
        if not isinstance(presets, Mapping):
            raise InputError(f"presets are Selectors by name, or a YAML file of them, got {type(presets).__name__}")
        for name, selector in presets.items():
            if not isinstance(selector, Selector):
                raise InputError(f"the preset {name!r} must be a Selector, got {type(selector).__name__}")
        self._presets = dict(presets)

    @classmethod
    def load(cls, path: str | Path) -> CappyLLM:
        """A handler for the presets of a YAML file.

        Args:
            path: The file (`cappy_select.select.load_panels`).

        Returns:
            The handler; `register` makes LiteLLM use one.

        Raises:
            InputError: there is a fault in the file; names it and the place.
        """
        return cls(load_presets(path))

    def completion(  # type: ignore[override]
        self, model: str, messages: list[Any], model_response: ModelResponse, optional_params: dict[str, Any], **_: Any
    ) -> ModelResponse:
        """`litellm.completion`; the other arguments of the seam carry nothing for a fan-out.

        What is raised are LiteLLM's exceptions; see the class.

        Args:
            model: The preset's name, without `cappy/`.
            messages: OpenAI-style.
            model_response: LiteLLM's empty response, which is filled.
            optional_params: Parameters of the call; what LiteLLM keeps for itself among them is left out.

        Returns:
            `model_response`.
        """
        selector, name = self._preset(model)
        try:
            selection = selector.select(_history(messages), _params(optional_params))
        except CappyError as error:
            raise as_litellm_error(error, name) from error
        return fill(model_response, name, selection)

    async def acompletion(  # type: ignore[override]
        self, model: str, messages: list[Any], model_response: ModelResponse, optional_params: dict[str, Any], **_: Any
    ) -> ModelResponse:
        """`completion` for async callers.

        Args:
            model, messages, model_response, optional_params: As in `completion`.

        Returns:
            `model_response`.
        """
        selector, name = self._preset(model)
        try:
            selection = await selector.aselect(_history(messages), _params(optional_params))
        except CappyError as error:
            raise as_litellm_error(error, name) from error
        return fill(model_response, name, selection)

    def streaming(  # type: ignore[override]
        self, model: str, messages: list[Any], optional_params: dict[str, Any], **_: Any
    ) -> Iterator[GenericStreamingChunk]:
        """`litellm.completion(stream=True)`; raises before the first chunk as `completion` does.

        Args:
            model, messages, optional_params: As in `completion`.

        Returns:
            Chunks in LiteLLM's own form.
        """
        selector, name = self._preset(model)

        def chunks() -> Iterator[GenericStreamingChunk]:
            made = Chunks()
            try:
                for piece in selector.stream(_history(messages), _params(optional_params)):
                    yield from made.of(piece)
            except CappyError as error:
                raise as_litellm_error(error, name) from error

        following = chunks()
        return _led_by(next(following), following)

    def astreaming(  # type: ignore[override]
        self, model: str, messages: list[Any], optional_params: dict[str, Any], **_: Any
    ) -> AsyncIterator[GenericStreamingChunk]:
        """`litellm.acompletion(stream=True)`; what a call meets is raised at the first chunk, not before.

        Args:
            model, messages, optional_params: As in `completion`.

        Returns:
            Chunks in LiteLLM's own form.
        """
        selector, name = self._preset(model)

        async def chunks() -> AsyncIterator[GenericStreamingChunk]:
            made = Chunks()
            try:
                async with aclosing(selector.astream(_history(messages), _params(optional_params))) as pieces:
                    async for piece in pieces:
                        for chunk in made.of(piece):
                            yield chunk
            except CappyError as error:
                raise as_litellm_error(error, name) from error

        return chunks()

    def _preset(self, model: str) -> tuple[Selector, str]:
        name = f"cappy/{model}"
        if model not in self._presets:
            known = ", ".join(f"cappy/{preset}" for preset in sorted(self._presets)) or "none"
            raise NotFoundError(f"there is no preset {name!r}; there is {known}", name, "cappy")
        return self._presets[model], name


def register(presets: Mapping[str, Selector] | str | Path) -> CappyLLM:
    """Make `litellm.completion(model="cappy/<name>", ...)` ask these selectors.

    Replaces an earlier registration; other custom providers stay.

    Args:
        presets: Selectors by name, or a YAML file of them (see `load_presets`).

    Returns:
        The handler that LiteLLM has now.

    Raises:
        InputError: a preset is none, or there is a fault in the file.
    """
    handler = CappyLLM.load(presets) if isinstance(presets, str | Path) else CappyLLM(presets)
    others = [item for item in litellm.custom_provider_map if item["provider"] != "cappy"]
    litellm.custom_provider_map = [*others, {"provider": "cappy", "custom_handler": handler}]
    litellm.utils.custom_llm_setup()
    return handler


def _led_by(first: GenericStreamingChunk, others: Iterator[GenericStreamingChunk]) -> Iterator[GenericStreamingChunk]:
    yield first
    yield from others


def _params(optional_params: Mapping[str, Any]) -> dict[str, Any]:
    """What of LiteLLM's parameters goes to the models. What it, or its Router, keeps for itself and puts among them all
    the same is left out; the selector judges the rest, which is a caller's."""
    own = (names().own | {"stream", "stream_options"}) - {"n"}
    return {
        name: value
        for name, value in optional_params.items()
        if name not in own and not (name == "n" and value in (1, None))
    }


def _history(messages: Sequence[Any]) -> list[Any]:
    """The messages without what only one vendor or this one says of an answer: the next turn goes to all models."""
    return [
        {name: value for name, value in message.items() if name not in _OF_ONE_VENDOR}
        if isinstance(message, Mapping) and message.get("role") == "assistant"
        else message
        for message in messages
    ]


_OF_ONE_VENDOR = {"provider_specific_fields", "reasoning_content", "thinking_blocks"}

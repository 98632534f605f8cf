"""`ChatCappy`: best of N behind one LangChain chat model. Two conversions around `Selector`."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage, InvalidToolCall, ToolCall, convert_to_openai_messages
from langchain_core.messages.tool import tool_call
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr

from cappy_select import Selection, Selector


class ChatCappy(BaseChatModel):
    """A chat model that asks several models for several answers and returns the best one unchanged.

    Example:
        >>> from langchain_cappy import ChatCappy
        >>> model = ChatCappy(models=["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"], samples=4)
        >>> model.invoke("Name three rivers in Peru.").response_metadata["score"]  # doctest: +SKIP

    The message's `usage_metadata` counts all calls. Its `response_metadata` has the winner's `model_name`,
    `score` and `finish_reason`, `tokens_cut` to fit the scorer's window, the `cost` of all calls in dollars
    (None when a price is unknown), a summary of the `candidates`, and the `failures`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    models: list[Any] = Field(min_length=1)
    """LiteLLM model names, or `cappy_select` providers."""
    samples: int = Field(4, ge=1)
    """Answers to ask of each model."""
    scorer: Any = None
    """A `Scorer`, or what `Scorer.load` takes; None for the embedded default."""
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    timeout: float = Field(60.0, gt=0)
    """Seconds for all calls of one answer together."""
    max_retries: int = Field(2, ge=0)
    min_usable: int = Field(1, ge=1)
    """Non-empty answers needed; with fewer, `cappy_select.NoCandidates` is raised."""
    api_key: SecretStr | None = None
    """For every model given by name; default each provider's own environment variable."""
    api_base: str | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further parameters of every call."""

    _built: tuple[dict[str, Any], Selector] = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Load the scorer and check the models once, here and not in the first request."""
        super().model_post_init(context)
        self._built = self._setup, Selector(**self._setup)

    @property
    def _setup(self) -> dict[str, Any]:
        return {
            "models": self.models,
            "samples": self.samples,
            "scorer": self.scorer,
            "deadline_s": self.timeout,
            "max_retries": self.max_retries,
            "min_usable": self.min_usable,
            "api_key": self.api_key.get_secret_value() if self.api_key else None,
            "api_base": self.api_base,
        }

    @property
    def _selector(self) -> Selector:
        """The selector of the fields as they are now: `model_copy(update=...)` and assignment count."""
        setup, selector = self._built
        if setup != self._setup:
            same = setup["scorer"] is self.scorer
            selector = Selector(**self._setup | ({"scorer": selector.scorer} if same else {}))
            self._built = self._setup, selector
        return selector

    @property
    def _llm_type(self) -> str:
        return "cappy"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What makes two instances answer differently; LangChain's cache keys on it."""
        return {
            "models": [model if isinstance(model, str) else model.model for model in self.models],
            "api_base": self.api_base,
            "samples": self.samples,
            "min_usable": self.min_usable,
            "timeout": self.timeout,
            "scorer": str(self._selector.scorer.bundle),
            **self._params(None, {}),
        }

    def _params(self, stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Parameters of one call: the fields', then the caller's."""
        fields = {"temperature": self.temperature, "max_tokens": self.max_tokens, "stop": stop or self.stop}
        given = {name: value for name, value in fields.items() if value is not None}
        return {**given, **self.model_kwargs, **kwargs}

    def get_num_tokens(self, text: str) -> int:
        """Tokens as the scorer counts them; LangChain's default would fetch a tokenizer from a hub."""
        return self._selector.scorer.count_tokens(text)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        """What tracing shows; there is no one model, so the name lists them."""
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_model_name"] = kwargs.get("model") or "+".join(self._identifying_params["models"])
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _as_result(self._selector.select(_as_openai(messages), **self._params(stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _as_result(await self._selector.aselect(_as_openai(messages), **self._params(stop, kwargs)))


def _as_openai(messages: list[BaseMessage]) -> list[dict[str, Any]]:
    converted = convert_to_openai_messages(messages)
    return converted if isinstance(converted, list) else [converted]


def _as_result(selection: Selection) -> ChatResult:
    best, usage, instruction = selection.best, selection.usage, selection.instruction
    tool_calls, invalid_tool_calls = _tool_calls(best.message)
    answer = AIMessage(
        content=best.message.get("content") or "",
        additional_kwargs={k: v for k, v in best.message.items() if k not in ("role", "content", "tool_calls")},
        tool_calls=tool_calls,
        invalid_tool_calls=invalid_tool_calls,
        usage_metadata={
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        },
        response_metadata={
            "model_name": best.model,
            "score": best.score,
            "finish_reason": best.finish_reason,
            "cost": selection.cost,
            "tokens_cut": {"instruction": instruction.tokens_cut, "answer": best.tokens_cut},
            "candidates": [
                {"model": candidate.model, "score": candidate.score, "rejected": candidate.rejected}
                for candidate in selection.candidates
            ],
            "failures": [failure.model_dump(mode="json") for failure in selection.failures],
        },
    )
    return ChatResult(generations=[ChatGeneration(message=answer)])


def _tool_calls(message: dict[str, Any]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Tool calls whose arguments are JSON, and those whose are not (an answer cut off at its token limit)."""
    valid, invalid = [], []
    for call in message.get("tool_calls") or ():
        try:
            parsed = parse_tool_call(call, return_id=True)
        except OutputParserException as error:
            invalid.append(make_invalid_tool_call(call, str(error)))
        else:
            if parsed is not None:
                valid.append(tool_call(name=parsed["name"], args=parsed["args"], id=parsed["id"]))
    return valid, invalid

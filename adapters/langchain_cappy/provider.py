"""`LangChainProvider`: a LangChain chat model as one of those that a `Selector` asks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, convert_to_messages, message_chunk_to_message
from langchain_core.runnables import Runnable, RunnableConfig

from cappy_select import Candidate, Delta, ProviderError, Request, Usage
from cappy_select.providers.openai_format import TokenPrices, failure_of
from cappy_select.types import estimated_usage
from langchain_cappy.errors import KINDS
from langchain_cappy.messages import as_candidate, as_delta, usage_of


class LangChainProvider:
    """A LangChain chat model that is asked for one answer a call.

    It reports to no callbacks but its own: the tokens of all candidates are counted once, by who asked. LangChain's
    cache is passed by, for it would give the same answer for every sample.

    Args:
        model: Any chat model; its own retries come before ours.
        name: In candidates and failures; default its provider and model, such as `openai/gpt-5-mini`.
        input_cost_per_token, output_cost_per_token: Dollars; without them the price is unknown.
    """

    def __init__(
        self,
        model: BaseChatModel,
        *,
        name: str | None = None,
        input_cost_per_token: float | None = None,
        output_cost_per_token: float | None = None,
    ) -> None:
        self._prices = TokenPrices.given(input_cost_per_token, output_cost_per_token)
        self._chat, self._name = model, name or name_of(model)

    @property
    def model(self) -> str:
        """Its name."""
        return self._name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    def price(self, usage: Usage) -> float | None:
        """Dollars by the prices given at construction; None without them."""
        return None if self._prices is None else self._prices.of(usage)

    async def complete(self, request: Request) -> list[Candidate]:
        """One `ainvoke`."""
        runnable, params = self._prepared(request, streaming=False)
        try:
            message = await runnable.ainvoke(convert_to_messages(list(request.messages)), _ALONE, **params)
        except Exception as error:
            raise failure_in(error, model=self._name) from None
        return [self._candidate(message, request)]

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Candidate, None]:
        """One `astream`."""
        runnable, params = self._prepared(request, streaming=True)
        whole: AIMessageChunk | None = None
        chunks: Any = runnable.astream(convert_to_messages(list(request.messages)), _ALONE, **params)
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    whole = chunk if whole is None else whole + chunk
                    if (delta := as_delta(chunk)).message:
                        yield delta
        except Exception as error:
            raise failure_in(error, model=self._name) from None
        if whole is None:
            raise ProviderError("the stream had no chunks", kind="invalid_response", model=self._name)
        yield self._candidate(message_chunk_to_message(whole), request)

    def _prepared(self, request: Request, *, streaming: bool) -> tuple[Runnable[Any, Any], dict[str, Any]]:
        """The model, with the request's tools, and the other parameters."""
        params = dict(request.params)
        chat = self._chat.model_copy(update={"cache": False, "disable_streaming": not streaming})
        tools, choice = params.pop("tools", None), params.pop("tool_choice", None)
        if not tools:
            return chat, params
        if isinstance(choice, dict):
            choice = choice.get("function", {}).get("name")
        return chat.bind_tools(
            tools, **({} if choice is None else {"tool_choice": _CHOICES.get(choice, choice)})
        ), params

    def _candidate(self, message: Any, request: Request) -> Candidate:
        if not isinstance(message, AIMessage):
            what = f"{type(message).__name__} {message!r:.80}"
            raise ProviderError(f"an AIMessage was expected, got {what}", kind="invalid_response", model=self._name)
        usage = usage_of(message) or estimated_usage(
            request.messages, [{"content": message.content}], request.params.get("tools")
        )
        return as_candidate(message, model=self._name, usage=usage, cost=self.price(usage))


_ALONE = RunnableConfig(callbacks=[], tags=[], metadata={}, run_name="cappy candidate")
_CHOICES = {"required": "any"}


def name_of(model: BaseChatModel) -> str:
    """Its provider and model, as it names itself to tracers."""
    params = model._get_ls_params()
    parts = (params.get("ls_provider"), params.get("ls_model_name"))
    return "/".join(part for part in parts if part) or type(model).__name__


def failure_in(error: Exception, *, model: str) -> ProviderError:
    """What went wrong in a LangChain model, in our words and without secrets."""
    failure = failure_of(error, model=model, api_key=None)
    kind = next((kind for known, kind in KINDS.items() if isinstance(error, known)), failure.kind)
    return ProviderError(failure.message, kind=kind, model=model, retry_after_s=failure.retry_after_s)

"""`LangChainProvider`: a LangChain chat model as one of those that a `Selector` asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    convert_to_messages,
    message_chunk_to_message,
)
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.context import _configure_hooks
from pydantic import SecretStr

from cappy_select import (
    Candidate,
    Delta,
    ProviderError,
    Request,
    Usage,
)
from cappy_select.ask import (
    TokenPrices,
    estimated_usage,
    failure_from,
    failure_of,
)
from cappy_select.core import (
    background,
    credentials_in,
    made_again,
)
from langchain_cappy.endings import error_of
from langchain_cappy.errors import kind_of
from langchain_cappy.messages import ORIGINALS, as_candidate, as_delta, usage_of
from langchain_cappy.threads import in_thread, iterate_in_thread

T = TypeVar("T")
_END: Any = object()


@made_again
class LangChainProvider:
    """A LangChain chat model that is asked for one answer a call.

    It reports to no callbacks but its own: the tokens of all candidates are counted once, by who asked. LangChain's
    cache is passed by, for it would give the same answer for every sample.

    Args:
        model: Any chat model; its own retries come before ours.
        name: In candidates and failures; default its provider and model, such as `openai/gpt-5-mini`.
        input_cost_per_token, output_cost_per_token: Dollars; without them the price is unknown.

    Raises:
        InputError: only half a price is given, or one that can't be.
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
        """Dollars by the prices given at construction; None without them.

        Args:
            usage: Tokens of one or several calls.

        Returns:
            Dollars, or None.
        """
        return None if self._prices is None else self._prices.of(usage)

    async def complete(self, request: Request) -> list[Candidate]:
        """One `invoke` or `ainvoke`.

        `invoke`, in a thread, where the model has no asynchronous client, or the call runs on the background loop of a
        synchronous caller.

        Args:
            request: What to ask; its `n` is not read. Tools are bound to the model, other parameters passed to the
                call.

        Returns:
            One answer.

        Raises:
            ProviderError: the call failed, or brought no AIMessage.
        """
        runnable, params = self._prepared(request, streaming=False)
        messages, context = self._messages(request), _apart()
        try:
            if self._is_for_threads():
                call = partial(runnable.invoke, messages, _ALONE, **params)
                message = await in_thread(partial(context.run, call))
            else:
                asked = runnable.ainvoke(messages, _ALONE, **params)
                message = await asyncio.get_running_loop().create_task(asked, context=context)
        except Exception as error:
            raise failure_in(error, self._chat, model=self._name) from None
        return [self._candidate(message, request)]

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Candidate, None]:
        """One `stream` or `astream`, as `complete` chooses between `invoke` and `ainvoke`.

        Args:
            request: As in `complete`.

        Yields:
            The answer's pieces as they come, then the whole of it.

        Raises:
            ProviderError: the call failed, or the stream broke off or had no chunks.
        """
        runnable, params = self._prepared(request, streaming=True)
        messages, context = self._messages(request), _apart()
        whole: AIMessageChunk | None = None
        if self._is_for_threads():
            chunks = iterate_in_thread(lambda: _each_in(context, runnable.stream(messages, _ALONE, **params)))
        else:
            chunks = _aeach_in(context, runnable.astream(messages, _ALONE, **params))
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    if not isinstance(chunk, AIMessageChunk):  # of a model that does not stream
                        yield self._candidate(chunk, request)
                        return
                    whole = chunk if whole is None else whole + chunk
                    if (delta := as_delta(chunk)).message:
                        yield delta
        except Exception as error:
            raise failure_in(error, self._chat, model=self._name) from None
        if whole is None:
            raise ProviderError("the stream had no chunks", kind="invalid_response", model=self._name)
        yield self._candidate(message_chunk_to_message(whole), request)

    def _is_for_threads(self) -> bool:
        """Whether it is called as a synchronous caller would: its asynchronous client belongs to the user's loop, and
        a model without one would fill the loop's own threads."""
        return background.is_own_loop() or type(self._chat)._agenerate is BaseChatModel._agenerate

    def _messages(self, request: Request) -> list[BaseMessage]:
        """The caller's own messages, where they are what is asked: OpenAI's form has no place for all of them."""
        originals = ORIGINALS.get()
        if originals is not None and originals[1] == list(request.messages):
            return list(originals[0])
        return convert_to_messages(list(request.messages))

    def _prepared(self, request: Request, *, streaming: bool) -> tuple[Runnable[Any, Any], dict[str, Any]]:
        """The model, with the request's tools, and the other parameters."""
        params = dict(request.params)
        # A model that its owner forbids to stream goes on not to.
        quiet = self._chat.disable_streaming if streaming else True
        chat = self._chat.model_copy(update={"cache": False, "disable_streaming": quiet})
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
        cost = self.price(usage)
        if error := error_of(message):
            raise failure_from(error, model=self._name, usage=usage, cost=cost)
        return as_candidate(message, model=self._name, usage=usage, cost=cost)


_ALONE = RunnableConfig(callbacks=[], tags=[], metadata={}, run_name="cappy candidate")
_CHOICES = {"required": "any"}


def name_of(model: BaseChatModel) -> str:
    """Its provider and model, as it names itself to tracers."""
    params = model._get_ls_params()
    parts = (params.get("ls_provider"), params.get("ls_model_name"))
    return "/".join(part for part in parts if part) or type(model).__name__


def failure_in(error: Exception, chat: Any, *, model: str) -> ProviderError:
    """What went wrong in a LangChain model, in our words and without its secrets."""
    failure = failure_of(error, model=model, secrets=_secrets_of(chat))
    kind = kind_of(error) or failure.kind
    return ProviderError(failure.message, kind=kind, model=model, retry_after_s=failure.retry_after_s)


def _secrets_of(chat: Any) -> frozenset[str]:
    while isinstance(chat, RunnableBinding):
        chat = chat.bound
    fields = getattr(chat, "__dict__", {})
    keys = [field.get_secret_value() for field in fields.values() if isinstance(field, SecretStr)]
    plain = {name: value for name, value in fields.items() if isinstance(value, str | dict)}
    return credentials_in(*keys, settings=plain)


def _apart() -> Context:
    """The caller's context without what reports LangChain's runs: this run is part of another, which is reported."""
    context = copy_context()
    reporting: list[ContextVar[Any]] = [var_child_runnable_config, *(hook[0] for hook in _configure_hooks)]
    for variable in reporting:
        context.run(variable.set, None)
    return context


def _each_in(context: Context, items: Iterator[T]) -> Iterator[T]:
    while (found := context.run(next, items, _END)) is not _END:
        yield found


async def _aeach_in(context: Context, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    loop = asyncio.get_running_loop()

    async def following() -> Any:
        return await anext(items, _END)

    try:
        while (found := await loop.create_task(following(), context=context)) is not _END:
            yield found
    finally:
        if isinstance(items, AsyncGenerator):
            await loop.create_task(_close(items), context=context)


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()

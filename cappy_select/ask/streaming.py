"""An answer in pieces: passed on as they come when only one was asked for, else the winner's after the selection."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from cappy_select.ask.calls import Call, highest_price, price_of
from cappy_select.ask.prices import estimated_usage
from cappy_select.ask.providers import Capabilities, Provider
from cappy_select.core.characters import Halves, joined_in
from cappy_select.core.errors import ProviderError
from cappy_select.core.types import Candidate, Delta, Message, Request, Usage

Emit = Callable[[Delta], None]
Stream = Callable[[Request], AsyncGenerator[Delta | Candidate, None]]


def passed_on(calls: Sequence[Call], emit: Emit) -> Sequence[Call]:
    """The calls, with what comes of an only one handed to `emit`, where its provider streams."""
    if len(calls) != 1 or calls[0].request.n != 1:
        return calls
    stream = Capabilities.of(calls[0].provider).stream
    return calls if stream is None else [replace(calls[0], provider=_PassingOn(calls[0].provider, stream, emit))]


def pieces_of(message: Message) -> Iterator[Delta]:
    """A whole message as deltas: its text word by word, its tool calls one at a time.

    Args:
        message: An assistant message.

    Yields:
        First what is neither text nor tool call, with the role; then the rest. Put together again they are the message.
    """
    content = message.get("content")
    apart = ("tool_calls", "content") if isinstance(content, str) or not content else ("tool_calls",)
    yield Delta(message={"role": "assistant"} | {name: value for name, value in message.items() if name not in apart})
    if isinstance(content, str):
        yield from (Delta(message={"content": word}) for word in re.findall(r"\s*\S+\s*|\s+", content))
    for index, call in enumerate(message.get("tool_calls") or ()):
        yield Delta(message={"tool_calls": [{"index": index} | dict(call)]})


def _without_first_halves(message: Message, halves: Halves) -> dict[str, Any]:
    """A delta whose texts do not end within a character: what they end with goes before those that follow."""
    passed = {
        name: halves.pass_on(name, value) if isinstance(value, str) and name != "role" else value
        for name, value in message.items()
    }
    if isinstance(calls := message.get("tool_calls"), list):
        passed["tool_calls"] = [_call_without(call, halves) for call in calls]
    return passed


def _call_without(call: Any, halves: Halves) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    arguments = halves.pass_on(("tool_calls", call.get("index")), function["arguments"])
    return {**call, "function": {**function, "arguments": arguments}}


def _delta_of(place: Any, half: str) -> dict[str, Any]:
    if isinstance(place, str):
        return {place: half}
    return {"tool_calls": [{"index": place[1], "function": {"arguments": half}}]}


class _PassingOn:
    """A provider whose answer's pieces are handed on as they come."""

    def __init__(self, provider: Provider, stream: Stream, emit: Emit) -> None:
        self._provider, self._stream, self._emit = provider, stream, emit

    @property
    def model(self) -> str:
        return self._provider.model

    def price(self, usage: Usage) -> float | None:
        return price_of(self._provider, usage)

    def highest_price(self, request: Request) -> float:
        return highest_price(Call(self._provider, request))

    async def complete(self, request: Request) -> list[Candidate]:
        begun: list[Message] = []
        waiting: dict[str, Any] = {}
        halves = Halves()
        try:
            async with aclosing(self._stream(request)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Candidate):
                        for place, half in halves.rest().items():
                            self._emit(Delta(message=_delta_of(place, half)))
                        return [piece.model_copy(update={"message": joined_in(piece.message)})]
                    waiting |= _without_first_halves(piece.message, halves)
                    if waiting.keys() != {"role"}:  # which says nothing: a call that ends now can be made again
                        begun.append(waiting)
                        self._emit(Delta(message=waiting))
                        waiting = {}
        except ProviderError as error:
            if not begun:
                raise
            # What was handed on can't be taken back, so this is no failure to try again after; and it was written.
            usage = error.usage or estimated_usage(request.messages, begun, request.params.get("tools"))
            raise ProviderError(
                f"the stream broke off: {error.kind}: {error.message}",
                kind="invalid_response",
                model=error.model,
                usage=usage,
                cost=error.cost if error.usage else self.price(usage),
            ) from None
        raise ProviderError("the stream ended without an answer", kind="invalid_response", model=self.model)

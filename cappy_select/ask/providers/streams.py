"""A streamed answer in OpenAI's format: its deltas as they come, then the candidate that they make."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Collection, Mapping
from inspect import isawaitable
from typing import Any

from cappy_select.ask.finish_reasons import meaning_of
from cappy_select.ask.providers.failures import error_in, failure_from, failure_of
from cappy_select.ask.providers.openai_format import Cost, body_of, candidates_of, without_none
from cappy_select.ask.providers.received import Heard, listen
from cappy_select.core.characters import Halves, joined
from cappy_select.core.errors import ProviderError
from cappy_select.core.types import Candidate, Delta, Request
from cappy_select.text.tool_calls import arguments_text


async def streamed(
    response: Any, request: Request, *, model: str, secrets: Collection[str], cost_of: Cost
) -> AsyncGenerator[Delta | Candidate, None]:
    """A streamed response of one choice: its deltas as they come, then the candidate that they make.

    Raises ProviderError, also for a stream that ends before its answer does, or says that it failed.
    """
    whole, heard = WholeAnswer(), listen(response)
    try:
        async for chunk in response:
            for delta in whole.add(dict(body_of(chunk))):
                yield Delta(message=delta)
            if whole.error is not None:
                break
    except Exception as error:
        if heard is None or not heard.is_over:
            raise _failure(error, heard, model=model, secrets=secrets) from None
        # LiteLLM stumbled over what came behind the answer, such as a figure that is none.
    finally:
        closing = (getattr(response, "aclose", None) or response.close)()
        if isawaitable(closing):
            await closing
    for delta in whole.rest():
        yield Delta(message=delta)
    if heard is not None:
        whole.note_heard(heard)
    if whole.error is None and (whole.broke_off or (heard is not None and heard.broke_off)):
        raise ProviderError("the stream ended before the answer did", kind="connection", model=model)
    candidate, *_ = candidates_of(whole.body(), request, model=model, cost_of=cost_of, secrets=secrets)
    yield candidate


def _failure(error: Exception, heard: Heard | None, *, model: str, secrets: Collection[str]) -> ProviderError:
    """What the server said, rather than what LiteLLM made of it."""
    if heard is not None and heard.error is not None:
        return failure_from(heard.error, model=model, secrets=secrets)
    if heard is not None and meaning_of(heard.end) == "failed":
        return ProviderError(f"the answer failed: its finish reason is {heard.end!r:.200}", kind="server", model=model)
    return failure_of(error, model=model, secrets=secrets)


class WholeAnswer:
    """The chunks of a stream, put together."""

    def __init__(self) -> None:
        self.error: Any = None
        self._body: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._choice: dict[str, Any] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._calls: list[_Call] = []
        self._halves = Halves()

    def add(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """Take a chunk in; its deltas, without what is empty."""
        choices = chunk.pop("choices", None)
        self._body |= {name: value for name, value in chunk.items() if value is not None}
        self.error = self.error or error_in(chunk)
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.get("index"):  # more answers than were asked for
                continue
            delta = choice.pop("delta", None)
            logprobs = choice.pop("logprobs", None)
            for name, tokens in (logprobs if isinstance(logprobs, dict) else {}).items():
                self._logprobs.setdefault(name, []).extend(tokens if isinstance(tokens, list) else ())
            self._choice |= {name: value for name, value in choice.items() if value is not None}
            self.error = self.error or error_in(choice)
            added = self._add_delta(without_none(delta) if isinstance(delta, dict) else {})
            return [added] if added else []
        return []

    def rest(self) -> list[dict[str, Any]]:
        """The halves whose other half never came."""
        return [
            {"tool_calls": [self._calls[place].piece(place, half)]} if isinstance(place, int) else {str(place): half}
            for place, half in self._halves.rest().items()
        ]

    @property
    def broke_off(self) -> bool:
        """There was a choice, and nobody said why it ended."""
        return bool(self._choice or self._message or self._calls) and self._choice.get("finish_reason") is None

    def note_heard(self, heard: Heard) -> None:
        """What came, before LiteLLM gave it another name."""
        self.error = self.error or heard.error
        if heard.error is not None:
            self._body["error"] = heard.error
        if heard.end and (self._choice or self._message or self._calls):
            self._choice.setdefault("finish_reason", heard.end)
            aside = self._choice.get("provider_specific_fields")
            self._choice["provider_specific_fields"] = (aside if isinstance(aside, dict) else {}) | {
                "native_finish_reason": heard.end
            }

    def body(self) -> dict[str, Any]:
        """As a response that was not streamed has it."""
        message = {"role": "assistant", "content": None} | {
            name: joined(value) if isinstance(value, str) else value for name, value in self._message.items()
        }
        if self._calls:
            message["tool_calls"] = [call.whole() for call in self._calls]
        choice = {"index": 0, "finish_reason": None} | self._choice | {"message": message}
        choice["logprobs"] = self._logprobs or None
        choices = [choice] if self._choice or self._message or self._calls else []
        return self._body | {"object": "chat.completion", "choices": choices}

    def _add_delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        """Take it in; what of it is new, and can be handed on."""
        added: dict[str, Any] = {}
        for name, value in delta.items():
            if value is None:
                continue
            if name == "tool_calls":
                pieces = [self._add_call(call) for call in (value if isinstance(value, list) else [value])]
                value = [piece for piece in pieces if piece is not None]
            elif name == "function_call" and isinstance(value, dict):
                known = self._message.setdefault(name, {"arguments": ""})
                value = _grown(known, value, "arguments")
            else:
                so_far: Any = self._message.get(name)
                if name != "role" and type(so_far) is type(value) and type(so_far) in (str, list):
                    self._message[name] = so_far + value
                else:
                    self._message[name] = value
                if isinstance(value, str):
                    value = self._halves.pass_on(name, value)
            if value not in ("", [], {}):
                added[name] = value
        return added

    def _add_call(self, piece: Any) -> dict[str, Any] | None:
        if not isinstance(piece, dict):
            self._calls.append(_Call(None, piece))
            return None
        index = self._place_of(piece)
        added = self._calls[index].add(piece)
        kind = self._calls[index].kind
        inner = added.get(kind)
        if isinstance(inner, dict):
            name = _ARGUMENTS[kind]
            inner[name] = self._halves.pass_on(index, inner.get(name) or "")
        return {"index": index} | added

    def _place_of(self, piece: Mapping[str, Any]) -> int:
        """Which call a piece belongs to: that of its index, unless it has another id; without an index the last."""
        index, name = piece.get("index"), piece.get("id")
        able = [place for place, call in enumerate(self._calls) if index is None or call.index == index]
        same = [place for place in able if name and self._calls[place].name == name]
        if same:
            return same[-1]
        if able:
            last = self._calls[able[-1]]
            is_another = bool(name and last.name) or (last.is_whole and _begins(piece))
            if not is_another:
                return able[-1]
        self._calls.append(_Call(index))
        return len(self._calls) - 1


_ARGUMENTS = {"function": "arguments", "custom": "input"}


def _begins(piece: Mapping[str, Any]) -> bool:
    return any(isinstance(piece.get(kind), Mapping) and piece[kind].get("name") for kind in _ARGUMENTS)


class _Call:
    """One tool call, as it comes."""

    def __init__(self, index: Any, odd: Any = None) -> None:
        self.index, self._odd = index, odd
        self._given: dict[str, Any] = {}

    @property
    def name(self) -> Any:
        """Its id."""
        return self._given.get("id")

    @property
    def is_whole(self) -> bool:
        """It has arguments, and they are JSON: what begins with a name is another call."""
        try:
            json.loads((self._given.get(self.kind) or {}).get(_ARGUMENTS[self.kind]) or "", strict=False)
        except (ValueError, RecursionError):
            return False
        return True

    @property
    def kind(self) -> str:
        return "custom" if "custom" in self._given else "function"

    def add(self, piece: Mapping[str, Any]) -> dict[str, Any]:
        """Take a piece in; what of it is to be handed on."""
        added: dict[str, Any] = {}
        for name, value in piece.items():
            if name in _ARGUMENTS and isinstance(value, dict):
                added[name] = _grown(self._given.setdefault(name, {_ARGUMENTS[name]: ""}), value, _ARGUMENTS[name])
            elif name != "index" and value:
                added[name] = self._given[name] = value
        return added

    def piece(self, index: int, text: str) -> dict[str, Any]:
        """More of its arguments, as a delta."""
        return {"index": index, self.kind: {_ARGUMENTS[self.kind]: text}}

    def whole(self) -> Any:
        """As a message has it; what was no call stays what it was."""
        if not self._given:
            return self._odd
        inner = self._given.get(self.kind)
        name = _ARGUMENTS[self.kind]
        call = {"type": self.kind} | self._given
        return call if inner is None else call | {self.kind: inner | {name: joined(inner[name])}}


def _grown(known: dict[str, Any], piece: dict[str, Any], growing: str) -> dict[str, Any]:
    """Add a piece of a call to what is known of it; the piece, with its arguments as text."""
    added = {name: value for name, value in piece.items() if value and name != growing}
    known |= added
    value = piece.get(growing)
    text = "" if value is None else arguments_text(value)
    known[growing] += text
    return added | {growing: text}

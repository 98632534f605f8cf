"""The tool calls of an assistant message, in whichever of its forms a vendor sends them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class ToolCall(NamedTuple):
    """One call. `arguments` is JSON text, or what a custom tool is given; `is_custom` tells them apart."""

    name: str
    arguments: str
    is_custom: bool = False

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"


def calls_in(message: Mapping[str, Any]) -> Iterator[ToolCall | None]:
    """The calls of `tool_calls` and of the older `function_call`; None for what has no call's form."""
    calls = message.get("tool_calls") or ()
    if isinstance(calls, Mapping):  # one, and not in a list
        calls = (calls,)
    if isinstance(calls, str) or not isinstance(calls, Sequence):
        yield None
        calls = ()
    for call in calls:
        yield _call(call)
    if message.get("function_call"):
        yield _function(message["function_call"])


def arguments_text(arguments: Any) -> str:
    """A call's arguments as JSON text: some vendors send the object itself, or null for none.

    Args:
        arguments: A text, which is returned as it is; None; or any value.

    Returns:
        JSON text, `{}` for None. What JSON can't write stands in it as its `str`.
    """
    if isinstance(arguments, str):
        return arguments
    return "{}" if arguments is None else json.dumps(arguments, ensure_ascii=False, default=str)


def with_texts(message: dict[str, Any]) -> dict[str, Any]:
    """The message, with the arguments of its calls as text, as OpenAI's format has them."""
    calls = message.get("tool_calls")
    changed: dict[str, Any] = {}
    if isinstance(calls, list):
        changed["tool_calls"] = [
            call | {"function": _with_text(call["function"])}
            if isinstance(call, dict) and isinstance(call.get("function"), dict)
            else call
            for call in calls
        ]
    if isinstance(message.get("function_call"), dict):
        changed["function_call"] = _with_text(message["function_call"])
    return message | changed


def _with_text(function: dict[str, Any]) -> dict[str, Any]:
    return function | {"arguments": arguments_text(function.get("arguments"))}


def _call(call: Any) -> ToolCall | None:
    if not isinstance(call, Mapping):
        return None
    custom = call.get("custom")
    if isinstance(custom, Mapping):
        said = custom.get("input")
        name = custom.get("name")
        text = said if isinstance(said, str) else "" if said is None else arguments_text(said)
        return ToolCall(name, text, is_custom=True) if isinstance(name, str) and name else None
    kind = call.get("type")
    if isinstance(kind, str) and kind not in ("", "function", "custom") and call.get("function") is None:
        return ToolCall(kind, "")  # a vendor's own kind, such as a search that it made itself
    return _function(call.get("function"))


def _function(function: Any) -> ToolCall | None:
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        return None
    return ToolCall(name, arguments_text(function.get("arguments")))

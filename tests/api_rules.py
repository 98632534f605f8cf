"""What OpenAI's chat-completion API refuses of a request: the loopback server refuses the same.

By the API reference (platform.openai.com/docs/api-reference/chat/create) and the errors that the API is known for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, SchemaError

PARAMETERS = {
    "frequency_penalty", "function_call", "functions",
    "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "messages", "metadata",
    "model", "n", "parallel_tool_calls", "presence_penalty", "reasoning_effort", "response_format", "seed", "stop",
    "store", "stream", "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user",
    "verbosity",
    "min_tokens", "top_k",  # vLLM's
}  # fmt: skip
FIELDS = {
    "system": {"content", "name"},
    "developer": {"content", "name"},
    "user": {"content", "name"},
    "assistant": {"content", "name", "tool_calls", "refusal", "audio", "annotations"},
    "tool": {"content", "name", "tool_call_id"},
}
PARTS = {
    "system": {"text"},
    "developer": {"text"},
    "user": {"text", "image_url", "input_audio", "file"},
    "assistant": {"text", "refusal"},
    "tool": {"text"},  # no images: only the Responses API takes them from tools
}
URL = re.compile(r"https?://\S+|data:image/[a-z+.-]+;base64,[A-Za-z0-9+/]+=*")


def violations_of(path: str, request: Any) -> list[str]:
    """What is wrong with a chat-completion request; nothing for a good one."""
    if path != "/v1/chat/completions":
        return [f"path {path}"]
    if not isinstance(request, dict):
        return ["the body is no object"]
    found = [] if isinstance(request.get("model"), str) else ["no model"]
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        return [*found, "no messages"]
    rules = (_parameters, _messages, _order, _tools, _response_format)
    return found + [fault for rule in rules for fault in rule(request)]


def _parameters(request: dict[str, Any]) -> Iterator[str]:
    yield from (f"unknown parameter {name!r}" for name in request if name not in PARAMETERS)
    for name in ("n", "max_tokens", "max_completion_tokens"):
        if not _is_count(request.get(name, 1)):
            yield f"{name} is {request[name]!r}"
    for name, most in (("temperature", 2), ("top_p", 1)):
        value = request.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            yield f"{name} is {value!r}"
    for name in ("stream", "parallel_tool_calls", "logprobs", "store"):
        if not isinstance(request.get(name, False), bool):
            yield f"{name} is {request[name]!r}"
    stop = request.get("stop", [])
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(s, str) and s for s in stops):
        yield f"stop is {stop!r}"
    if "max_tokens" in request and "max_completion_tokens" in request:
        yield "max_tokens and max_completion_tokens"
    if "stream_options" in request and not request.get("stream"):
        yield "stream_options without stream"
    if not isinstance(request.get("stream_options", {}), dict):
        yield f"stream_options is {request['stream_options']!r}"


def _messages(request: dict[str, Any]) -> Iterator[str]:
    for place, message in enumerate(request["messages"]):
        where = f"messages[{place}]"
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in FIELDS:
            yield f"{where}: role {role!r}"
            continue
        yield from (f"{where}: unknown field {name!r}" for name in message.keys() - FIELDS[role] - {"role"})
        if "name" in message and not re.fullmatch(r"[^\s<|\\/>]{1,64}", str(message["name"])):
            yield f"{where}: name {message['name']!r}"
        if role == "tool" and not isinstance(message.get("tool_call_id"), str):
            yield f"{where}: no tool_call_id"
        yield from (f"{where}: {fault}" for fault in _content(role, message))
        if "tool_calls" in message:
            yield from (f"{where}: {fault}" for fault in _tool_calls(message["tool_calls"]))


def _content(role: str, message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if content is None and role == "assistant" and any(message.get(k) for k in ("tool_calls", "refusal", "audio")):
        return
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        yield f"content is {content!r}, a string or an array of parts was expected"
        return
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in PARTS[role]:
            yield f"a content part of type {kind!r} in a {role} message"
        elif set(part) - {"cache_control"} != {"type", kind}:  # a gateway to Anthropic takes that mark
            yield f"a {kind} part has the keys {sorted(part)}"
        elif not _fits(kind, part[kind]):
            yield f"a {kind} part holds {json.dumps(part[kind])[:80]}"


def _fits(kind: str, value: Any) -> bool:
    if kind in ("text", "refusal"):
        return isinstance(value, str)
    if not isinstance(value, dict):
        return False
    if kind == "image_url":
        return (
            value.keys() <= {"url", "detail"}
            and bool(URL.fullmatch(str(value.get("url"))))
            and value.get("detail", "auto") in {"auto", "low", "high", "original"}
        )
    if kind == "input_audio":
        return (
            value.keys() == {"data", "format"} and isinstance(value["data"], str) and value["format"] in ("wav", "mp3")
        )
    if not all(isinstance(text, str) for text in value.values()):
        return False
    # Without a filename the API takes the data for none, and says that the file_id is missing.
    return value.keys() == {"file_id"} or (
        value.keys() == {"file_data", "filename"} and value["file_data"].startswith("data:")
    )


def _tool_calls(calls: Any) -> Iterator[str]:
    if not isinstance(calls, list) or not calls:
        yield f"tool_calls is {calls!r}"
        return
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or call.get("type") != "function" or not isinstance(call.get("id"), str):
            yield f"the tool call {json.dumps(call)[:80]}"
        elif not isinstance(function.get("arguments"), str) or not _is_name(function.get("name")):
            yield f"the tool call's function {json.dumps(function)[:80]}"


def _order(request: dict[str, Any]) -> Iterator[str]:
    """Each tool call is answered before anybody else speaks, and nothing else is."""
    open_calls: list[str] = []
    for place, message in enumerate([*request["messages"], {"role": "end"}]):
        if not isinstance(message, dict):
            continue
        if message.get("role") == "tool":
            if message.get("tool_call_id") in open_calls:
                open_calls.remove(message["tool_call_id"])
            else:
                yield f"messages[{place}]: answers the call {message.get('tool_call_id')!r}, which was not just made"
            continue
        if open_calls:
            yield f"messages[{place}]: the tool calls {', '.join(open_calls)} were not answered before"
        calls = message.get("tool_calls")
        open_calls = [str(c.get("id")) for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []


def _tools(request: dict[str, Any]) -> Iterator[str]:
    if "tools" not in request:
        yield from (f"{name} without tools" for name in ("tool_choice", "parallel_tool_calls") if name in request)
        return
    tools, names = request["tools"], []
    if not isinstance(tools, list) or not tools:
        yield f"tools is {tools!r}"
        return
    for tool in tools:
        custom = tool.get("custom") if isinstance(tool, dict) and tool.get("type") == "custom" else None
        if isinstance(custom, dict) and tool.keys() == {"type", "custom"} and _is_name(custom.get("name")):
            names.append(custom["name"])
            continue
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.keys() != {"type", "function"} or tool["type"] != "function":
            yield f"the tool {json.dumps(tool)[:80]}"
            continue
        names.append(function.get("name"))
        yield from _named_schema(function, "parameters", "the function")
    if len(set(map(str, names))) < len(names):
        yield f"the tools' names are not unique: {names}"
    choice = request.get("tool_choice", "auto")
    if isinstance(choice, dict):
        asked = choice.get(str(choice.get("type")))
        if (
            choice.get("type") not in ("function", "custom")
            or not isinstance(asked, dict)
            or asked.get("name") not in names
        ):
            yield f"tool_choice is {choice}, the tools are {names}"
    elif choice not in ("none", "auto", "required"):
        yield f"tool_choice is {choice!r}"


def _response_format(request: dict[str, Any]) -> Iterator[str]:
    wanted = request.get("response_format", {"type": "text"})
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_schema":
        named = wanted.get("json_schema")
        if wanted.keys() != {"type", "json_schema"} or not isinstance(named, dict) or "schema" not in named:
            yield f"response_format is {json.dumps(wanted)[:80]}"
        else:
            yield from _named_schema(named, "schema", "json_schema")
    elif kind == "json_object":
        if "json" not in json.dumps([m.get("content") for m in request["messages"] if isinstance(m, dict)]).lower():
            yield "response_format json_object, and the messages do not contain the word JSON"
    elif wanted != {"type": "text"}:
        yield f"response_format is {json.dumps(wanted)[:80]}"


def _named_schema(holder: dict[str, Any], key: str, what: str) -> Iterator[str]:
    """A function, or a form of answers."""
    if not _is_name(holder.get("name")):
        yield f"{what} has the name {holder.get('name')!r}"
    yield from (f"{what} has {name!r}" for name in holder.keys() - {"name", "description", "strict", key})
    if not isinstance(holder.get("description", ""), str) or holder.get("strict") not in (None, True, False):
        yield f"{what}'s description or strict"
    schema = holder.get(key, {"type": "object", "properties": {}, "additionalProperties": False, "required": []})
    if not isinstance(schema, dict) or schema.get("type") != "object":
        yield f"{what}'s {key} must be a schema of type object, got {json.dumps(schema)[:80]}"
        return
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        yield f"{what}'s {key} is no JSON Schema: {error.message[:80]}"
        return
    if holder.get("strict"):
        yield from (f"{what} is strict, and {fault}" for fault in _not_strict(schema))


def _not_strict(schema: Any) -> Iterator[str]:
    """What `strict` does not allow: optional and further properties."""
    if isinstance(schema, list):
        yield from (fault for item in schema for fault in _not_strict(item))
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties", {})
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            yield "additionalProperties is not false"
        if set(schema.get("required", ())) != set(properties):
            yield "not all properties are required"
    inner = [*properties.values(), *schema.get("$defs", {}).values()]
    inner += [schema[key] for key in ("items", "anyOf") if key in schema]
    yield from _not_strict(inner)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", value))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1

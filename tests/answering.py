"""A model for the loopback server that answers from the request alone: its messages, tools and schemas.

loopback.answer = Answering(spoil_every=3)
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from loopback import Reply

TOKEN = re.compile(r"\w+|[^\w\s]")
QUOTED = re.compile(r"(?<!\w)'([^']+)'(?!\w)|\"([^\"]+)\"|“([^”]+)”")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)")
NAMED = re.compile(r"\b(?:[Ff]or|[Ii]n|[Aa]t|[Nn]amed|[Aa]bout|[Oo]f)\s+([A-Z]\w*(?:,?\s+[A-Z]\w*)*)")
STYLE = re.compile(r"\b(?:an?|the)\s+([A-Z]\w+)")  # "a Pirate greeting"
FORMATS = {"date": "2024-05-17", "date-time": "2024-05-17T12:00:00Z", "email": "a@example.org", "uri": "http://x.org"}
SMALL = set(
    "a an and any are as at be by can do for from get give has have how i in is it its me my no not of on only or "
    "please return returns that the their this to tool two use using value was what when where which who will with"
    .split()
)  # fmt: skip
TEXTS = (
    "In short, {topic} is answered like this: {first} comes first, and the rest follows from {last}.",
    "A careful answer on {topic}: it depends on {first}, and then on {last}.",
    "There are two things to say about {topic}. One is {first}; the other is {last}.",
)
OFF_TOPIC = "Bananas are yellow, and trains leave on time."


class Answering:
    """Replies as a helpful model would give; every `spoil_every`-th of a model is one that must not win (0: none)."""

    def __init__(self, *, spoil_every: int = 0) -> None:
        self.spoiled = 0
        self._every, self._given, self._lock = spoil_every, Counter[str](), threading.Lock()

    def __call__(self, request: dict[str, Any]) -> Reply:
        with self._lock:
            self._given[request["model"]] += 1
            turn = self._given[request["model"]]
            spoil = bool(self._every) and turn % self._every == 0
            self.spoiled += spoil
        asked = _last_user_text(request["messages"])
        try:
            if (tool := _tool_to_call(request, asked)) is not None:
                return _call(request, tool, asked, turn, turn // self._every if spoil else None)
            return _say(request, _text(request, asked, turn, turn // self._every if spoil else None))
        except ValueError as error:
            return Reply(status=500, error=f"the answering model knows no answer: {error}")


def _call(request: dict[str, Any], tool: dict[str, Any], asked: str, turn: int, spoilt: int | None) -> Reply:
    """A call of the tool; spoilt: of one that is not offered, with arguments that its schema forbids, or no call."""
    name, schema = tool["name"], tool.get("parameters") or {"type": "object"}
    arguments = json.dumps(Filling(schema, asked).value(), ensure_ascii=turn % 2 == 0)
    forced = request.get("tool_choice") not in (None, "auto")
    if spoilt is not None and forced and spoilt % 3 == 2:
        return _say(request, OFF_TOPIC)
    if spoilt is not None and spoilt % 2:
        name = f"{name}_2"
    elif spoilt is not None:
        arguments = _broken(arguments, schema)
    arguments, cut = _within(request, arguments)
    function = {"name": name, "arguments": arguments}
    call = {"id": f"call_{request['model']}_{turn}", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return Reply(message=message, finish_reason="length" if cut else "tool_calls", usage=_usage(request, function))


def _say(request: dict[str, Any], text: str) -> Reply:
    stops = request.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0]
    text, cut = _within(request, text)
    return Reply(text=text, finish_reason="length" if cut else "stop", usage=_usage(request, text))


def _text(request: dict[str, Any], asked: str, turn: int, spoilt: int | None) -> str:
    """JSON where that is wanted, else prose that uses the tools' results, or the question's words."""
    wanted = request.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        schema = wanted["json_schema"]["schema"]
        found = json.dumps(Filling(schema, asked).value(), ensure_ascii=False)
        return found if spoilt is None else _broken(found, schema)
    if wanted.get("type") == "json_object":
        keys = [text for text in _quoted(asked) if text.isidentifier()] or ["answer"]
        found = json.dumps({key: _sentence(asked, turn + place) for place, key in enumerate(keys)})
        return found if spoilt is None else found[: len(found) // 2]
    if spoilt is not None:
        return OFF_TOPIC
    results = dict(_results(request["messages"]))
    if results:
        return "According to " + ", and to ".join(f"{name}, the result is {said}" for name, said in results.items())
    return _sentence(asked, turn)


def _sentence(asked: str, turn: int) -> str:
    words = _content_words(asked) or ["that"]
    return TEXTS[turn % len(TEXTS)].format(topic=" ".join(words[:8]), first=words[0], last=words[-1])


def _tool_to_call(request: dict[str, Any], asked: str) -> dict[str, Any] | None:
    """The tool that must be called, or that the user asks for and that was not called yet."""
    tools = [tool["function"] for tool in request.get("tools") or ()]
    choice = request.get("tool_choice", "auto")
    if not tools or choice == "none":
        return None
    if isinstance(choice, dict):
        return next(tool for tool in tools if tool["name"] == choice["function"]["name"])
    called = {name for name, _ in _results(request["messages"])}
    open_tools = [tool for tool in tools if tool["name"] not in called]
    best = max(open_tools, key=lambda tool: _asked_for(tool, asked), default=None)  # the first of equals
    if choice == "required":
        return best or tools[0]
    return best if best is not None and _asked_for(best, asked) >= 2 else None


def _asked_for(tool: dict[str, Any], asked: str) -> int:
    """How much of the tool is in what the user said: its name's words weigh two, its description's one."""
    said = {word.lower() for word in _content_words(asked)}
    name = set(_content_words(tool["name"].replace("_", " ").lower()))
    described = set(_content_words((tool.get("description") or "").lower())) - name
    schema = tool.get("parameters") or {}
    needed = [schema["properties"][key].get("type") for key in schema.get("required", ())]
    numbers = all(kind in ("integer", "number") for kind in needed)
    fits = bool(needed) and numbers and len(NUMBER.findall(asked)) >= len(needed)
    return 20 * (tool["name"] in asked) + 2 * len(name & said) + len(described & said) + 2 * fits


def _results(messages: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What the tools said since the user spoke, by their names."""
    names: dict[str, str] = {}
    since = max((place for place, m in enumerate(messages) if m["role"] == "user"), default=0)
    for message in messages[since:]:
        names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls") or ()}
        if message["role"] == "tool":
            yield names[message["tool_call_id"]], _as_text(message["content"])


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    said = [_as_text(message["content"]) for message in messages if message["role"] == "user"]
    return said[-1] if said else ""


def _as_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content or () if part["type"] == "text")


def _content_words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text) if word.lower() not in SMALL]


def _quoted(text: str) -> list[str]:
    return ["".join(groups) for groups in QUOTED.findall(text)]


class Filling:
    """A value for a JSON Schema, made of what the user said where that fits."""

    def __init__(self, schema: dict[str, Any], asked: str) -> None:
        self._root, self._asked = schema, asked
        self._numbers = [json.loads(number) for number in NUMBER.findall(asked)]
        self._names = [*_quoted(asked), *NAMED.findall(asked), *STYLE.findall(asked)]

    def value(self) -> Any:
        """Raises ValueError for a schema that it can't fill."""
        found = self._fill(self._root, "answer")
        errors = list(Draft202012Validator(self._root).iter_errors(found))
        if errors:
            raise ValueError(f"{found!r} for the schema {self._root}: {errors[0].message}")
        return found

    def _fill(self, schema: dict[str, Any], name: str) -> Any:
        if "$ref" in schema:
            found: Any = self._root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            return self._fill(found, name)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return next((v for v in schema["enum"] if str(v).lower() in self._asked.lower()), schema["enum"][0])
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self._fill(next(s for s in schema[key] if s.get("type") != "null"), name)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next(k for k in kind if k != "null")
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return [self._fill(schema.get("items") or {}, name) for _ in range(max(1, schema.get("minItems", 1)))]
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        return self._string(schema, name) if kind == "string" else {"boolean": True, "null": None}[kind]

    def _object(self, schema: dict[str, Any]) -> dict[str, Any]:
        """All properties but the optional ones that the user does not want: "no punchline"."""
        required = schema.get("required", ())
        return {
            name: self._fill(inner, name)
            for name, inner in schema.get("properties", {}).items()
            if name in required or not re.search(rf"\b(no|without)\s+{re.escape(name)}", self._asked)
        }

    def _number(self, schema: dict[str, Any], *, whole: bool) -> float:
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        for place, number in enumerate(self._numbers):
            fits = Draft202012Validator({k: v for k, v in schema.items() if k != "type"}).is_valid(number)
            if fits and (not whole or number == int(number)):
                return self._numbers.pop(place)
        return least if Draft202012Validator(schema).is_valid(least) else schema.get("maximum", least)

    def _string(self, schema: dict[str, Any], name: str) -> str:
        check = Draft202012Validator(schema)
        for place, found in enumerate(self._names):
            if check.is_valid(found) and schema.get("format") is None:
                return self._names.pop(place)
        topic = " ".join(_content_words(self._asked)[-3:]) or "that"
        text = FORMATS.get(str(schema.get("format")), f"The {name.replace('_', ' ')} of {topic}")
        return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _broken(text: str, schema: dict[str, Any]) -> str:
    """JSON that the schema forbids, or no JSON where it forbids little."""
    value = json.loads(text)
    for name in value:
        wrong = json.dumps(value | {name: {"unexpected": value[name]}})
        if not Draft202012Validator(schema).is_valid(json.loads(wrong)):
            return wrong
    return text[:-1]


def _within(request: dict[str, Any], text: str) -> tuple[str, bool]:
    """The text as far as the limit allows, and whether that cut it."""
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    tokens = list(TOKEN.finditer(text))
    if limit is None or len(tokens) <= limit:
        return text, False
    return text[: tokens[limit - 1].end()], True


def _usage(request: dict[str, Any], written: str | dict[str, str]) -> dict[str, int]:
    read = json.dumps([request["messages"], request.get("tools"), request.get("response_format")], ensure_ascii=False)
    text = written if isinstance(written, str) else " ".join(written.values())
    return {"prompt_tokens": len(TOKEN.findall(read)), "completion_tokens": len(TOKEN.findall(text))}

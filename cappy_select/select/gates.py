"""Which answers are usable: said before they are scored. A rejected one stays in the Selection, with the reason."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from cappy_select.core.copies import made_again
from cappy_select.core.errors import InputError
from cappy_select.core.json_schema import Schema, schema_of_a_request
from cappy_select.core.patterns import Pattern
from cappy_select.core.time_limit import OutOfTime
from cappy_select.core.types import Candidate, Request
from cappy_select.text.tool_calls import calls_in


@runtime_checkable
class Gate(Protocol):
    """Says of an answer why it can't be used."""

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """Why an answer can't be used.

        Args:
            candidate: The answer.
            request: What was asked.

        Returns:
            Why not, in a few words; None when it can. A gate that raises has objected, with the error as its reason.
        """
        ...


class FinishReason:
    """The model ended for one of these reasons (`stop`, `tool_calls`, ...).

    Args:
        allowed: The finish reasons, exactly as the provider gives them.

    Raises:
        InputError: none is given.
    """

    def __init__(self, *allowed: str) -> None:
        if not allowed:
            raise InputError("name the finish reasons that are allowed, such as FinishReason('stop')")
        self._allowed = allowed

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """None for an allowed finish reason."""
        if candidate.finish_reason in self._allowed:
            return None
        return f"finish reason {candidate.finish_reason!r}, not {' or '.join(map(repr, self._allowed))}"


class Matches:
    """The answer's text holds a match of a regular expression (`re.search`; write `^` and `$` for all of it).

    Args:
        pattern: In the syntax of `re`, or compiled by it: its flags are kept. A search that takes longer than a second
            objects.

    Raises:
        InputError: the pattern is none, or too large.
    """

    def __init__(self, pattern: str | re.Pattern[str]) -> None:
        self._pattern = Pattern(pattern)

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """None where it matches."""
        return None if self._pattern.search(candidate.text) else f"no match of {self._pattern.pattern!r}"


@made_again
class JsonSchema:
    """The answer's whole text is JSON that a schema allows.

    Args:
        schema: JSON Schema, draft 4 or later; 2020-12 where it does not say.

    Raises:
        InputError: the schema is none, or too large.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = Schema(schema)

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """None for valid JSON; else where it departs from the schema."""
        return self._schema.fault(candidate.text, "the answer")


class ToolArguments:
    """Every tool call names a tool of the request, with arguments that the tool's schema allows.

    Every Selector has this gate where the request has tools.

    Args:
        required: An answer without tool calls does not pass either. The request's `tool_choice` can say so as well.
    """

    def __init__(self, *, required: bool = False) -> None:
        self._required = required

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """None when every call could be made."""
        must, forced = _choice(request.params)
        calls = list(calls_in(candidate.message))
        if not calls:
            return "no tool call" if self._required or must == "some" else None
        if must == "none":
            return "calls a tool, and was asked not to"
        schemas = _schemas(request.params)
        for call in calls:
            if call is None:
                return "a tool call without a function"
            if call.name not in schemas:
                return f"calls the tool {call.name!r}, which was not offered"
            if forced and call.name != forced:
                return f"calls the tool {call.name!r}, not {forced!r}"
            schema = schemas[call.name]
            if call.is_custom and schema is not None:
                return f"calls the function {call.name!r} as a custom tool"
            if call.is_custom or schema is None:  # a custom tool takes any text
                continue
            arguments = _readable(call.arguments)
            if fault := _fault_by(schema, arguments, f"the arguments of {call.name}"):
                return fault
        return None


def _choice(params: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Whether an answer must call `some` tool or `none`, and which one, by `tool_choice` in any vendor's form."""
    choice = params.get("tool_choice") or params.get("function_call")
    if isinstance(choice, Mapping):
        inner = choice.get(str(choice.get("type")))
        parts: tuple[Any, ...] = (inner, choice.get("function"), choice)
        forced = next((part["name"] for part in parts if _has_name(part)), None)
        if forced:
            return "some", str(forced)
        choice = inner.get("mode") if isinstance(inner, Mapping) else choice.get("type")
    return {"required": "some", "any": "some", "none": "none"}.get(str(choice)), None


def _schemas(params: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | None]:
    """Of the tools offered, by name; None for a custom tool, which has none."""
    found: dict[str, Mapping[str, Any] | None] = {}
    for tool in [*(params.get("tools") or ()), *(params.get("functions") or ())]:
        if not isinstance(tool, Mapping):
            continue
        inner = tool.get("custom") if tool.get("type") == "custom" else tool.get("function")
        said = next((part for part in (inner, tool) if _has_name(part)), None)
        if said is not None:
            schema = said.get("parameters") or said.get("input_schema") or {}
            found[str(said["name"])] = None if tool.get("type") == "custom" or schema is True else schema
    return found


def _has_name(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value.get("name"))


def _readable(arguments: str) -> str:
    """Arguments with their control characters escaped: models write raw line breaks, and most readers take them.

    None at all, in whatever way, are `{}`.
    """
    arguments = arguments.strip()
    if arguments in ("", "null"):
        return "{}"
    if _CONTROL.search(arguments) is None:
        return arguments
    try:
        written: str = json.dumps(json.loads(arguments, strict=False))
        return written
    except (ValueError, RecursionError):
        return arguments


_CONTROL = re.compile(r"[\x00-\x1f]")


class ResponseFormat:
    """The answer is JSON where the request's `response_format` asked for it, as its schema allows.

    An answer that calls tools passes. Every Selector has this gate where the request has a `response_format`.
    """

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """None for what was asked for."""
        asked = request.params.get("response_format")
        if not isinstance(asked, Mapping) or any(calls_in(candidate.message)):
            return None
        if asked.get("type") == "json_object":
            return _fault_by({"type": "object"}, candidate.text, "the answer")
        if asked.get("type") != "json_schema" or not isinstance(asked.get("json_schema"), Mapping):
            return None
        return _fault_by(asked["json_schema"].get("schema") or {}, candidate.text, "the answer")


FORMAL = ("tools", "functions", "response_format")
"""Parameters of a request that say what form an answer must have."""

AS_ASKED: tuple[Gate, ...] = (ToolArguments(), ResponseFormat())
"""What every answer to a request with tools or a format must pass."""


class _Check:
    """A function of the candidate as a gate: True or None lets it pass, False or a reason does not."""

    def __init__(self, check: Callable[[Candidate], object]) -> None:
        self._check = check
        self.name = getattr(check, "__name__", type(check).__name__)
        if inspect.iscoroutinefunction(check):
            raise InputError(f"the gate {self.name} is async; a gate is an ordinary function")

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """What the function says."""
        said = self._check(candidate)
        if said is None or said is True:
            return None
        if said is False or isinstance(said, str):
            return said or f"{self.name} said no"
        raise TypeError(f"it returned a {type(said).__name__}, not True, False, None or a reason: write bool(...)")


def as_gates(gates: Iterable[Gate | Callable[[Candidate], object]]) -> tuple[Gate, ...]:
    """Gates, and functions of a candidate as gates. Raises InputError for anything else."""
    found: list[Gate] = []
    if not isinstance(gates, Iterable):
        raise InputError(f"gates is a list of gates, got {type(gates).__name__}")
    for gate in gates:
        if isinstance(gate, Gate) and not isinstance(gate, type):
            found.append(gate)
        elif callable(gate) and not isinstance(gate, type):
            found.append(_Check(gate))
        else:
            raise InputError(f"a gate is an object with `reason`, or a function of a candidate, got {gate!r:.80}")
    return tuple(found)


def reason_against(candidate: Candidate, request: Request, gates: Iterable[Gate]) -> str | None:
    """Why the first gate that objects does so. A gate that fails objects: one answer must not sink the others.

    Args:
        candidate: The answer.
        request: What was asked.
        gates: Asked in their order.

    Returns:
        The reason; None when no gate objects.
    """
    for gate in gates:
        try:
            reason = gate.reason(candidate, request)
        except OutOfTime as error:
            return f"its gates had not ended in time: {error}"
        except Exception as error:
            name = gate.name if isinstance(gate, _Check) else type(gate).__name__
            return f"{name} failed: {type(error).__name__}: {error}"
        if reason is not None:
            return str(reason) or f"{type(gate).__name__} said no"
    return None


def _fault_by(schema: Any, text: str, what: str) -> str | None:
    """By a request's own schema. One that can't be read here (a pattern of another language's, a $ref to elsewhere)
    is no fault of the answer, which must be JSON all the same."""
    return (schema_of_a_request(schema) or Schema(True)).fault(text, what)

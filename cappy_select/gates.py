"""Which answers are usable: said before they are scored. A rejected one stays in the Selection, with the reason."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from cappy_select.errors import InputError
from cappy_select.json_schema import Schema, schema_of_a_request
from cappy_select.patterns import Pattern
from cappy_select.time_limit import OutOfTime
from cappy_select.types import Candidate, Request, response_text

MAX_CHARACTERS = 2_000_000  # a longer answer is a broken server's: the largest models write a third of this


@runtime_checkable
class Gate(Protocol):
    """Says of an answer why it can't be used."""

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """Why not, in a few words; None when it can."""
        ...


class Complete:
    """The answer has text or a tool call, is no refusal, and was not cut off. Every Selector has this one."""

    def __init__(self, *, accept_cut_off: bool = False) -> None:
        self._accept_cut_off = accept_cut_off

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """`empty answer`, `refused`, `cut off at its token limit`, `too long`."""
        refusal = candidate.message.get("refusal")
        if refusal or candidate.finish_reason in {"content_filter", "refusal", "safety"}:
            return f"refused: {str(refusal or candidate.finish_reason)[:200]}"
        text = response_text(candidate.message)
        if not text.strip():
            return "empty answer"
        if len(text) > MAX_CHARACTERS:
            return f"too long: {len(text):,} characters, at most {MAX_CHARACTERS:,} are read"
        if candidate.finish_reason in {"length", "max_tokens"} and not self._accept_cut_off:
            return "cut off at its token limit"
        return None


class FinishReason:
    """The model ended for one of these reasons (`stop`, `tool_calls`, ...)."""

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
    """The answer's text holds a match of a regular expression (`re.search`; write `^` and `$` for all of it)."""

    def __init__(self, pattern: str | re.Pattern[str]) -> None:
        self._pattern = Pattern(pattern)

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """None where it matches."""
        return None if self._pattern.search(candidate.text) else f"no match of {self._pattern.pattern!r}"


class JsonSchema:
    """The answer's whole text is JSON that a schema allows (JSON Schema, draft 4 or later; default 2020-12).

    Raises InputError for a schema that is none, or too large.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = Schema(schema)

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """None for valid JSON; else where it departs from the schema."""
        return self._schema.fault(candidate.text, "the answer")


class ToolArguments:
    """Every tool call names a tool of the request, with arguments that the tool's schema allows.

    An answer without tool calls passes, unless they are `required`, here or by the request's `tool_choice`. Every
    Selector has this gate where the request has tools.
    """

    def __init__(self, *, required: bool = False) -> None:
        self._required = required

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """None when every call could be made."""
        choice = request.params.get("tool_choice")
        forced = choice.get("function", {}).get("name") if isinstance(choice, Mapping) else None
        calls = candidate.message.get("tool_calls") or ()
        if not calls:
            return "no tool call" if self._required or forced or choice in ("required", "any") else None
        if choice == "none":
            return "calls a tool, and was asked not to"
        schemas = {
            tool["function"]["name"]: tool["function"].get("parameters") or {}
            for tool in request.params.get("tools") or ()
            if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping)
        }
        for call in calls:
            function = call.get("function") if isinstance(call, Mapping) else None
            if not isinstance(function, Mapping):
                return "a tool call without a function"
            name, arguments = str(function.get("name")), str(function.get("arguments") or "{}")
            if name not in schemas:
                return f"calls the tool {name!r}, which was not offered"
            if forced and name != forced:
                return f"calls the tool {name!r}, not {forced!r}"
            fault = _fault_by(schemas[name], arguments, f"the arguments of {name}")
            if fault:
                return fault
        return None


class ResponseFormat:
    """The answer is JSON where the request's `response_format` asked for it, as its schema allows.

    An answer that calls tools passes. Every Selector has this gate where the request has a `response_format`.
    """

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """None for what was asked for."""
        asked = request.params.get("response_format")
        if not isinstance(asked, Mapping) or candidate.message.get("tool_calls"):
            return None
        if asked.get("type") == "json_object":
            return _fault_by({"type": "object"}, candidate.text, "the answer")
        if asked.get("type") != "json_schema" or not isinstance(asked.get("json_schema"), Mapping):
            return None
        return _fault_by(asked["json_schema"].get("schema") or {}, candidate.text, "the answer")


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
    for gate in gates:
        if isinstance(gate, Gate) and not isinstance(gate, type):
            found.append(gate)
        elif callable(gate) and not isinstance(gate, type):
            found.append(_Check(gate))
        else:
            raise InputError(f"a gate is an object with `reason`, or a function of a candidate, got {gate!r:.80}")
    return tuple(found)


def reason_against(candidate: Candidate, request: Request, gates: Iterable[Gate]) -> str | None:
    """Why the first gate that objects does so. A gate that fails objects: one answer must not sink the others."""
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

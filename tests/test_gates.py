from __future__ import annotations

import json
import re

import pytest

from cappy_select import (
    Candidate,
    FinishReason,
    InputError,
    JsonSchema,
    Matches,
    Request,
    ToolArguments,
)
from cappy_select.ask.complete import MAX_CHARACTERS, Complete
from cappy_select.select import ResponseFormat
from cappy_select.select.gates import as_gates, reason_against

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": SCHEMA}}]
ASK = Request(messages=({"role": "user", "content": "q"},), params={"tools": TOOLS})


def answer(text=None, finish_reason="stop", **message):
    return Candidate(model="m", message={"role": "assistant", "content": text} | message, finish_reason=finish_reason)


def call(name, arguments):
    return answer(tool_calls=[{"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}])


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (answer("yes"), None),
        (call("find", "{}"), None),
        (answer(""), "empty answer"),
        (answer(" \n"), "empty answer"),
        (answer(None), "empty answer"),
        (answer("half an ans", "length"), "cut off: length"),
        (answer(None, refusal="I can't help with that."), "refused: I can't help with that."),
        (answer("", "content_filter"), "refused: content_filter"),
        (answer("x" * (MAX_CHARACTERS + 1)), "too long: 2,000,001 characters, at most 2,000,000 are read"),
    ],
)
def test_an_answer_is_complete_or_why_not(candidate, reason):
    assert Complete().reason(candidate, ASK) == reason


def test_a_short_limit_on_purpose_accepts_what_it_cut_off():
    assert Complete(accept_cut_off=True).reason(answer("half", "length"), ASK) is None
    assert Complete(accept_cut_off=True).reason(answer("", "length"), ASK) == "empty answer"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"age": 3}', None),
        ('{"age": -1}', r"breaks the schema at \$.age"),
        ("{}", "'age' is a required property"),
        ("Sure! {}", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_json_that_a_schema_allows(text, reason):
    found = JsonSchema(SCHEMA).reason(answer(text), ASK)
    assert found is None if reason is None else found is not None and re.search(reason, found)


def test_a_schema_that_is_none_is_an_error_at_construction():
    with pytest.raises(InputError, match="no JSON Schema"):
        JsonSchema({"type": "nonsense"})


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (call("find", '{"age": 3}'), None),
        (call("find", '{"age": "three"}'), "the arguments of find breaks the schema"),
        (call("find", '{"age": 3'), "the arguments of find is not JSON"),
        (call("lose", "{}"), "calls the tool 'lose', which was not offered"),
        (answer(tool_calls=[None]), "a tool call without a function"),
        (answer("no tool needed"), None),
    ],
)
def test_tool_calls_that_could_be_made(candidate, reason):
    found = ToolArguments().reason(candidate, ASK)
    assert found is None if reason is None else found is not None and found.startswith(reason)


def test_a_tool_call_can_be_required():
    assert ToolArguments(required=True).reason(answer("none"), ASK) == "no tool call"


def asking(**params):
    return Request(messages=({"role": "user", "content": "q"},), params=params)


@pytest.mark.parametrize(
    ("choice", "candidate", "reason"),
    [
        ("auto", answer("none"), None),
        ("none", answer("none"), None),
        ("none", call("a", "{}"), "calls a tool, and was asked not to"),
        ("required", answer("none"), "no tool call"),
        ("any", answer("none"), "no tool call"),
        ({"type": "function", "function": {"name": "b"}}, answer("none"), "no tool call"),
        ({"type": "function", "function": {"name": "b"}}, call("a", "{}"), "calls the tool 'a', not 'b'"),
        ({"type": "function", "function": {"name": "b"}}, call("b", "{}"), None),
        ({"type": "allowed_tools"}, answer("none"), None),
    ],
)
def test_a_tool_choice_is_kept(choice, candidate, reason):
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in "ab"]
    assert ToolArguments().reason(candidate, asking(tools=tools, tool_choice=choice)) == reason


def test_a_schema_that_can_not_be_read_here_is_no_fault_of_the_answer():
    elsewhere = {"type": "object", "properties": {"a": {"$ref": "https://elsewhere.example/a.json"}}}
    letters = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^\p{L}+$"}}}  # ECMA-262
    for schema in (elsewhere, letters):
        tools = [{"type": "function", "function": {"name": "a", "parameters": schema}}]
        assert ToolArguments().reason(call("a", '{"a": "x"}'), asking(tools=tools)) is None
        assert "is not JSON" in str(ToolArguments().reason(call("a", "{"), asking(tools=tools)))
        wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        assert ResponseFormat().reason(answer('{"a": "x"}'), asking(response_format=wanted)) is None


NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("asked", "text", "reason"),
    [
        (None, "no", None),
        ({"type": "text"}, "no", None),
        ({"type": "json_object"}, '{"n": "x"}', None),
        ({"type": "json_object"}, "[1]", "the answer breaks the schema at $"),
        ({"type": "json_object"}, "no", "the answer is not JSON"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": NUMBER}}, '{"n": 1}', None),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": NUMBER}}, '{"n": "x"}', "at $.n"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": NUMBER}}, "no", "the answer is not JSON"),
    ],
)
def test_a_response_format_is_kept(asked, text, reason):
    found = ResponseFormat().reason(answer(text), asking(response_format=asked))
    assert found is None if reason is None else reason in found
    assert ResponseFormat().reason(call("a", "{}"), asking(response_format=asked)) is None


def test_patterns_and_finish_reasons():
    assert Matches(r"\d+").reason(answer("it is 42"), ASK) is None
    assert Matches(r"\d+").reason(answer("it is"), ASK) == r"no match of '\\d+'"
    assert FinishReason("stop").reason(answer("x"), ASK) is None
    assert FinishReason("stop").reason(answer("x", "length"), ASK) == "finish reason 'length', not 'stop'"
    with pytest.raises(InputError, match="no regular expression"):
        Matches("(")
    with pytest.raises(InputError, match="name the finish reasons"):
        FinishReason()


def is_polite(candidate):
    return "please" in candidate.text


def test_a_function_is_a_gate():
    def fails(candidate):
        raise ZeroDivisionError("oops")

    gates = as_gates([is_polite])
    assert reason_against(answer("please"), ASK, gates) is None
    assert reason_against(answer("now"), ASK, gates) == "is_polite said no"
    assert reason_against(answer("x"), ASK, as_gates([lambda c: "too curt"])) == "too curt"
    assert reason_against(answer("x"), ASK, as_gates([lambda c: None])) is None
    assert reason_against(answer("x"), ASK, as_gates([fails])) == "fails failed: ZeroDivisionError: oops"


def test_a_function_that_says_neither_yes_nor_no_is_named():
    reason = reason_against(answer("42"), ASK, as_gates([lambda c: re.search("4", c.text)]))
    assert (
        reason == "<lambda> failed: TypeError: it returned a Match, not True, False, None or a reason: write bool(...)"
    )

    async def later(candidate):
        return True

    with pytest.raises(InputError, match="the gate later is async"):
        as_gates([later])


def test_json_has_no_nan_and_a_schema_fetches_nothing():
    assert "NaN is no JSON number" in JsonSchema({}).reason(answer("NaN"), ASK)
    remote = JsonSchema({"$ref": "http://127.0.0.1:9/schema.json"})
    assert "Unresolvable" in reason_against(answer("{}"), ASK, [remote])


def test_the_first_objection_is_the_reason():
    gates = (Complete(), *as_gates([JsonSchema(SCHEMA), Matches("never")]))
    assert reason_against(answer(""), ASK, gates) == "empty answer"
    assert "is not JSON" in reason_against(answer("never"), ASK, gates)
    assert reason_against(answer(json.dumps({"age": 1})), ASK, gates) == "no match of 'never'"


@pytest.mark.parametrize("gate", ["regex", 3, JsonSchema, None])
def test_what_is_no_gate_is_an_error(gate):
    with pytest.raises(InputError, match="a gate is"):
        as_gates([gate])


@pytest.mark.parametrize("arguments", ["", " \n", "null", "\t", " {} "])
def test_no_arguments_in_whatever_way_are_none(arguments):
    tools = [{"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}}]
    assert ToolArguments().reason(call("a", arguments), asking(tools=tools)) is None


def test_a_function_is_not_called_as_a_custom_tool():
    odd = answer(tool_calls=[{"id": "1", "type": "custom", "custom": {"name": "find", "input": "junk"}}])
    assert ToolArguments().reason(odd, asking(tools=TOOLS)) == "calls the function 'find' as a custom tool"


@pytest.mark.parametrize("given", [lambda candidate: True, 5, "gate"])
def test_gates_that_are_no_list_are_said_to_be_none(given):
    with pytest.raises(InputError, match="gate"):
        as_gates(given)

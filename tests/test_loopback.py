"""The server that other tests rely on: it streams as OpenAI does, and refuses what OpenAI refuses."""

from __future__ import annotations

import json
import re
import time

import openai
import pytest
from answering import Answering
from api_rules import violations_of
from loopback import Reply

ASK = [{"role": "user", "content": "Which river flows through Iquitos? Say it in JSON."}]
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"river": "Ucayali"}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWER = {"role": "tool", "tool_call_id": "1", "content": "It is long."}
SCHEMA = {
    "type": "object",
    "properties": {"river": {"type": "string"}, "length_km": {"type": ["integer", "null"], "maximum": 9000}},
    "required": ["river", "length_km"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "find", "description": "Find a river.", "parameters": SCHEMA}}
FORM = {"type": "json_schema", "json_schema": {"name": "river", "schema": SCHEMA, "strict": True}}


@pytest.fixture
def client(loopback):
    with openai.OpenAI(api_key="sk-secret-1234", base_url=loopback.base, max_retries=0) as client:
        yield client.chat.completions


def stream(client, **more):
    return list(client.create(model="m", messages=ASK, stream=True, stream_options={"include_usage": True}, **more))


def test_a_stream_has_the_pieces_of_the_api_in_their_order(loopback, client):
    loopback.replies["m"] = [Reply(text="  The Amazon\n flows. ", finish_reason="length", logprobs=[-1.0, -2.0])]
    first, *pieces, last, usage = stream(client)
    assert first.choices[0].delta.role == "assistant"
    assert [piece.choices[0].delta.content for piece in pieces] == ["  The", " Amazon", "\n flows.", " "]
    assert [len(piece.choices[0].logprobs.content) for piece in pieces] == [1, 1, 0, 0]
    assert (last.choices[0].delta.content, last.choices[0].finish_reason) == (None, "length")
    assert (usage.choices, usage.usage.total_tokens) == ([], 14)
    assert not [chunk for chunk in (first, *pieces, last) if chunk.usage]
    assert loopback.billed == {"prompt_tokens": 10, "completion_tokens": 4}
    without = list(client.create(model="m", messages=ASK, stream=True))
    assert without[-1].choices[0].finish_reason == "length"
    assert loopback.billed["prompt_tokens"] == 20


def test_tool_calls_are_streamed_by_their_index(loopback, client):
    other = CALL | {"id": "2"}
    loopback.replies["m"] = [Reply(message=CALLS | {"tool_calls": [CALL, other]}, finish_reason="tool_calls")]
    pieces = [call for chunk in stream(client)[1:-2] for call in chunk.choices[0].delta.tool_calls]
    for index in (0, 1):
        first, *rest = (piece for piece in pieces if piece.index == index)
        assert (first.id, first.function.name, first.function.arguments) == (str(index + 1), "find", "")
        assert "".join(piece.function.arguments for piece in rest) == CALL["function"]["arguments"]
        assert len(rest) > 2
        assert {piece.id for piece in rest} == {None}


def test_several_choices_and_refusals_are_streamed_too(loopback, client):
    loopback.gives_n = True
    loopback.replies["m"] = [Reply(text="one"), Reply(message={"role": "assistant", "content": None, "refusal": "No."})]
    choices = [chunk.choices[0] for chunk in stream(client, n=2)[:-1]]
    assert "".join(c.delta.content or "" for c in choices if c.index == 0) == "one"
    assert "".join(c.delta.refusal or "" for c in choices if c.index == 1) == "No."


def test_pieces_come_one_after_the_other(loopback, client):
    loopback.replies["m"] = [Reply(text="one two three", delay_s=0.05, pieces_delay_s=0.1)]
    began, times = time.perf_counter(), []
    for _ in client.create(model="m", messages=ASK, stream=True):
        times.append(time.perf_counter() - began)  # noqa: PERF401 - when, and not what
    assert times[0] >= 0.05
    assert times[-1] - times[0] >= 0.35


def test_a_stream_can_fail_before_it_begins_and_break_off(loopback, client):
    loopback.replies["m"] = [Reply(status=429), Reply(text="one two three four", hang_up="mid-body")]
    with pytest.raises(openai.RateLimitError):
        stream(client)
    seen = []
    with pytest.raises(openai.APIConnectionError):
        for chunk in client.create(model="m", messages=ASK, stream=True):
            seen += [choice.delta.content for choice in chunk.choices]
    assert seen == ["", "one", " two"]


GOOD = {
    "plain": {},
    "chat": {"messages": [{"role": "system", "content": "Be brief."}, *ASK, CALLS, ANSWER, ASK[0]]},
    "two calls": {
        "messages": [*ASK, CALLS | {"tool_calls": [CALL, CALL | {"id": "2"}]}, ANSWER | {"tool_call_id": "2"}, ANSWER]
    },
    "tools": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "find"}}},
    "strict tool": {"tools": [{"type": "function", "function": TOOL["function"] | {"strict": True}}]},
    "no parameters": {"tools": [{"type": "function", "function": {"name": "find"}}], "tool_choice": "required"},
    "form": {"response_format": FORM},
    "any JSON": {"response_format": {"type": "json_object"}},
    "stream": {"stream": True, "stream_options": {"include_usage": True}, "stop": ["a"], "max_completion_tokens": 5},
}
USER = {"role": "user"}
LOOSE = {"type": "object", "properties": {"river": {"type": "string"}}}
NO_SCHEMA = LOOSE | {"required": "river"}


def parts(*content, role="user"):
    return {"messages": [{"role": role, "content": list(content)}]}


def function(**fields):
    return {"tools": [{"type": "function", "function": fields}]}


BAD = [
    ({"messages": []}, "no messages"),
    ({"messages": [{"role": "human", "content": "q"}]}, "role 'human'"),
    ({"messages": [ASK[0] | {"id": "1"}]}, "unknown field 'id'"),
    ({"messages": [USER | {"content": None}]}, "content is None"),
    (parts(), r"content is \[\]"),
    (parts({"type": "image", "url": "http://x"}), "type 'image' in a user message"),
    (parts({"type": "image_url", "image_url": {"url": "x"}}), "image_url part holds"),
    (parts({"type": "input_audio", "input_audio": {"data": "AA==", "format": "ogg"}}), "input_audio part holds"),
    (parts({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA=="}}), "file part holds"),
    ({"messages": [*ASK, CALLS, ANSWER | parts({"type": "image_url"})["messages"][0] | {"role": "tool"}]}, "in a tool"),
    ({"messages": [*ASK, {"role": "assistant", "content": None}, *ASK]}, "content is None"),
    ({"messages": [*ASK, CALLS | {"content": "", "tool_calls": []}, *ASK]}, r"tool_calls is \[\]"),
    ({"messages": [*ASK, CALLS | {"tool_calls": [CALL | {"function": {"name": "f"}}]}, ANSWER]}, "call's function"),
    ({"messages": [*ASK, CALLS | {"tool_calls": [CALL | {"type": "tool"}]}, ANSWER]}, "the tool call "),
    ({"messages": [*ASK, CALLS, *ASK]}, r"messages\[2\]: the tool calls 1 were not answered"),
    ({"messages": [*ASK, CALLS]}, "the tool calls 1 were not answered"),
    ({"messages": [*ASK, CALLS | {"tool_calls": [CALL, CALL | {"id": "2"}]}, ANSWER]}, "the tool calls 2 were not"),
    ({"messages": [*ASK, CALLS, *ASK, ANSWER]}, "answers the call '1', which was not just made"),
    ({"messages": [*ASK, CALLS, ANSWER, ANSWER]}, "not just made"),
    ({"messages": [*ASK, ANSWER]}, "not just made"),
    ({"deadline": 3}, "unknown parameter 'deadline'"),
    ({"n": 0}, "n is 0"),
    ({"temperature": 3}, "temperature is 3"),
    ({"stop": list("abcde")}, "stop is"),
    ({"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens and"),
    ({"stream_options": {"include_usage": True}}, "without stream"),
    ({"tools": []}, "tools is"),
    ({"tools": [TOOL["function"]]}, "the tool "),
    (function(name="find it", parameters=SCHEMA), "the name 'find it'"),
    (function(name="find", parameters={"type": "array"}), "of type object"),
    (function(name="find", parameters=NO_SCHEMA), "no JSON Schema"),
    (function(name="find", parameters=LOOSE | {"additionalProperties": False}, strict=True), "not all properties"),
    (function(name="find", parameters=LOOSE | {"required": ["river"]}, strict=True), "additionalProperties"),
    ({"tools": [TOOL, TOOL]}, "not unique"),
    ({"tool_choice": "auto"}, "tool_choice without tools"),
    ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice is 'any'"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "lose"}}}, "the tools are"),
    ({"parallel_tool_calls": False}, "without tools"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "river"}}}, "response_format is"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, "has the name None"),
    ({"response_format": {"type": "json_object"}, "messages": [USER | {"content": "q"}]}, "the word JSON"),
]


@pytest.mark.parametrize("case", GOOD)
def test_good_requests_have_no_faults(case):
    assert violations_of("/v1/chat/completions", {"model": "m", "messages": ASK} | GOOD[case]) == []


@pytest.mark.parametrize(("asked", "fault"), BAD)
def test_what_the_api_refuses_is_refused(asked, fault):
    found = violations_of("/v1/chat/completions", {"model": "m", "messages": ASK} | asked)
    assert re.search(fault, "; ".join(found))


def test_a_refusal_is_an_error_and_is_recorded(loopback, client):
    with pytest.raises(openai.BadRequestError, match="was not just made"):
        client.create(model="m", messages=[*ASK, ANSWER])
    assert len(loopback.violations) == 1
    loopback.violations.clear()


def said(client, text, **more):
    (choice,) = client.create(model="m", messages=[{"role": "user", "content": text}], **more).choices
    return choice


def test_answers_are_derived_from_the_request(loopback, client):
    choices, question = [], "Why do cats sleep?"
    for limits in ({}, {"stop": ["cats"]}, {"max_tokens": 5}):
        loopback.answer = Answering()  # whose first answer is always the same
        choices.append(said(client, question, **limits))
    whole, stopped, short = (choice.message.content for choice in choices)
    assert [choice.finish_reason for choice in choices] == ["stop", "stop", "length"]
    assert stopped + "cats sleep" + whole.partition("cats sleep")[2] == whole
    assert whole.startswith(short)
    assert len(short) < len(whole) / 2
    assert said(client, question).message.content != whole

    choice = said(client, "Find 'Ucayali', 1771 km long.", tools=[TOOL])
    assert choice.finish_reason == "tool_calls"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"river": "Ucayali", "length_km": 1771}
    assert said(client, question, tools=[TOOL]).message.tool_calls is None
    form = said(client, "The longest? 99999 or 7 km?", response_format=FORM).message.content
    assert json.loads(form)["length_km"] == 7
    done = client.create(model="m", messages=[USER | {"content": "Find 'it'."}, CALLS, ANSWER], tools=[TOOL])
    assert "It is long." in done.choices[0].message.content


def test_every_third_answer_of_a_model_is_bad_when_told(loopback, client):
    loopback.answer = Answering(spoil_every=3)
    names, arguments = [], []
    for _ in range(6):
        function = said(client, "Find 'Ucayali', 7 km.", tools=[TOOL]).message.tool_calls[0].function
        names.append(function.name)
        arguments.append(json.loads(function.arguments) == {"river": "Ucayali", "length_km": 7})
    assert names == ["find", "find", "find_2", "find", "find", "find"]
    assert arguments == [True] * 5 + [False]
    assert loopback.answer.spoiled == 2

"""Tool calls in all the forms in which vendors send them, whole and in pieces, through both clients."""

from __future__ import annotations

import json

import pytest
from loopback import Reply

from cappy_select import Candidate, Delta, NoCandidates, Request, Selector, ToolArguments
from cappy_select.ask.complete import Complete
from cappy_select.text.messages import response_text
from cappy_select.text.tool_calls import ToolCall, calls_in

FIND = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]},
    },
}
PING = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}}
SQL = {"type": "custom", "custom": {"name": "sql", "description": "Runs SQL."}}
CUSTOM = {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1\nFROM rivers"}}


@pytest.fixture(params=["litellm", "openai"])
def ask(request, loopback, provider, direct, default):
    """Asks a model for one answer, whole or streamed, through either client."""
    make = {"litellm": provider, "openai": direct}[request.param]

    def asking(*, stream=False, **params):
        selector = Selector([make("m")], samples=1, scorer=default, max_retries=0, deadline_s=20.0)
        if not stream:
            return [], selector.select("What do you know of the Ucayali?", **params)
        *pieces, chosen = selector.stream("What do you know of the Ucayali?", **params)
        return pieces, chosen

    return asking


def called(name, arguments, **more):
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}} | more


def events(*deltas, end="tool_calls"):
    common = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": end})
    lines = [json.dumps(common | {"choices": [choice]}) for choice in choices]
    body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
    return Reply(body=body.encode(), content_type="text/event-stream")


def replied(*calls, **more):
    return Reply(
        message={"role": "assistant", "content": None, "tool_calls": list(calls)} | more, finish_reason="tool_calls"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"river": "Ucayali"}, '{"river": "Ucayali"}'), ('{"river": "the\nUcayali"}', '{"river": "the\nUcayali"}')],
)
def test_arguments_come_as_text_and_a_raw_line_break_is_read(loopback, ask, arguments, text):
    loopback.replies["m"] = [replied(called("find", arguments))]
    _, chosen = ask(tools=[FIND])
    assert chosen.best.message["tool_calls"][0]["function"]["arguments"] == text


@pytest.mark.parametrize("arguments", [None, "", "{}"])
def test_a_tool_without_parameters_may_be_called_with_nothing(loopback, ask, arguments):
    loopback.replies["m"] = [replied(called("ping", arguments))]
    _, chosen = ask(tools=[PING])
    assert chosen.best.message["tool_calls"][0]["function"]["arguments"] in ("", "{}")


def test_a_custom_tool_is_called_with_text(loopback, ask):
    loopback.replies["m"] = [replied(CUSTOM)]
    _, chosen = ask(tools=[FIND, SQL], tool_choice={"type": "custom", "custom": {"name": "sql"}})
    assert chosen.best.message["tool_calls"][0]["custom"] == CUSTOM["custom"]
    assert response_text(chosen.best.message) == "sql(SELECT 1\nFROM rivers)"


def test_a_custom_tool_in_pieces(loopback, ask):
    first = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": ""}}
    more = [{"index": 0, "custom": {"input": piece}} for piece in ("SELECT", " 1")]
    loopback.replies["m"] = [events({"role": "assistant"}, *({"tool_calls": [call]} for call in (first, *more)))]
    pieces, chosen = ask(stream=True)
    (call,) = chosen.best.message["tool_calls"]
    assert (call["id"], call["type"], call["custom"]) == ("c", "custom", {"name": "sql", "input": "SELECT 1"})
    said = [call["custom"]["input"] for piece in pieces for call in piece.message.get("tool_calls", ())]
    assert "".join(said) == "SELECT 1"


def test_the_older_function_call_is_a_call(loopback, ask):
    function = {"name": "find", "arguments": '{"river": "Ucayali"}'}
    message = {"role": "assistant", "content": None, "function_call": function}
    loopback.replies["m"] = [Reply(message=message, finish_reason="function_call")]
    _, chosen = ask(functions=[FIND["function"]])
    assert chosen.best.message["function_call"] == function
    loopback.replies["m"] = [Reply(message=message | {"function_call": function | {"arguments": "{}"}})]
    with pytest.raises(NoCandidates) as caught:
        ask(functions=[FIND["function"]])
    assert "breaks the schema" in str(caught.value)


@pytest.mark.parametrize("place", [{"index": 0}, {}, {"index": None}])
@pytest.mark.parametrize("names", [("a", "b"), (None, None)])
def test_two_calls_in_one_place_are_two(loopback, ask, place, names):
    calls = [
        called("find", json.dumps({"river": river})) | place | {"id": name}
        for name, river in zip(names, ("Ucayali", "Marañón"), strict=True)
    ]
    loopback.replies["m"] = [events({"role": "assistant"}, *({"tool_calls": [call]} for call in calls))]
    _, chosen = ask(stream=True, tools=[FIND])
    arguments = [json.loads(call["function"]["arguments"]) for call in chosen.best.message["tool_calls"]]
    assert arguments == [{"river": "Ucayali"}, {"river": "Marañón"}]


def test_pieces_that_say_only_their_index_belong_to_its_call(loopback, ask):
    deltas = [
        {
            "tool_calls": [
                {"index": 0} | called("find", "") | {"id": "a"},
                {"index": 1} | called("ping", "") | {"id": "b"},
            ]
        },
        {
            "tool_calls": [
                {"index": 1, "function": {"arguments": "{"}},
                {"index": 0, "function": {"arguments": '{"river":'}},
            ]
        },
        {
            "tool_calls": [
                {"index": 0, "function": {"arguments": ' "Ucayali"}'}},
                {"index": 1, "function": {"arguments": "}"}},
            ]
        },
    ]
    loopback.replies["m"] = [events(*deltas)]
    _, chosen = ask(stream=True, tools=[FIND, PING])
    assert [call["function"]["arguments"] for call in chosen.best.message["tool_calls"]] == [
        '{"river": "Ucayali"}',
        "{}",
    ]


@pytest.mark.parametrize("call", [None, "find", 7, {}, {"id": "1", "type": "function", "function": None}])
def test_a_call_that_is_none_loses_its_answer_alone(loopback, direct, default, call):
    loopback.replies["odd"] = [replied(call, content="Here it is.")]
    loopback.replies["m"] = [Reply(text="The Ucayali.")]
    chosen = Selector([direct("odd"), direct("m")], samples=1, scorer=default).select("Name a river.")
    assert chosen.best.model == "m"
    assert chosen.candidates[1].rejected.startswith("a tool call that is none")


def test_a_lost_call_costs_litellm_one_answer_too(loopback, provider, default):
    loopback.replies["odd"] = [replied(None, content="Here it is.")]
    loopback.replies["m"] = [Reply(text="The Ucayali.")]
    chosen = Selector([provider("odd"), provider("m")], samples=1, scorer=default).select("Name a river.")
    assert chosen.best.model == "openai/m"
    assert loopback.calls_to("odd") == 1


def asked(choice, *calls, **params):
    candidate = Candidate(model="m", message={"role": "assistant", "content": "x", "tool_calls": list(calls)})
    request = Request(
        messages=({"role": "user", "content": "q"},), params={"tools": [FIND, SQL], "tool_choice": choice} | params
    )
    return ToolArguments().reason(candidate, request)


def test_a_choice_of_tools_counts_in_every_vendors_form():
    find = called("find", '{"river": "x"}')
    for some in (
        *(
            "required",
            "any",
            {"type": "any"},
            {"type": "custom", "custom": {"name": "sql"}},
            {"type": "tool", "name": "sql"},
        ),
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}},
    ):
        assert asked(some) == "no tool call"
    for free in ("auto", {"type": "auto"}, {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}, None):
        assert asked(free) is None
    assert asked({"type": "custom", "custom": {"name": "sql"}}, find) == "calls the tool 'find', not 'sql'"
    assert asked({"type": "custom", "custom": {"name": "sql"}}, CUSTOM) is None
    assert asked({"type": "none"}, find) == "calls a tool, and was asked not to"
    assert (
        asked("auto", CUSTOM | {"custom": {"name": "rm", "input": ""}}) == "calls the tool 'rm', which was not offered"
    )


def test_calls_are_read_in_each_form():
    message = {
        "tool_calls": [
            called("find", {"river": "x"}),
            CUSTOM,
            None,
            {"type": "web_search_call", "id": "1"},
            called("", "{}"),
        ],
        "function_call": {"name": "ping", "arguments": None},
    }
    assert list(calls_in(message)) == [
        ToolCall("find", '{"river": "x"}'),
        ToolCall("sql", "SELECT 1\nFROM rivers", is_custom=True),
        None,
        ToolCall("web_search_call", ""),
        None,
        ToolCall("ping", "{}"),
    ]
    assert list(calls_in({"tool_calls": None, "function_call": None})) == []
    assert list(calls_in({"tool_calls": "find"})) == [None]


def test_halves_of_a_character_join_wherever_they_stand(loopback, ask):
    first = {"index": 0} | called("find", '{"river": "\ud83d')
    deltas = [
        {"role": "assistant", "content": "a \ud83d"},
        {"content": "\ude00 b \ud83d"},
        {"tool_calls": [first]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '\ude00"}'}}]},
    ]
    loopback.replies["m"] = [events(*deltas)]
    pieces, chosen = ask(stream=True, tools=[FIND])
    assert chosen.text == "a 😀 b \ud83d"  # the last one never found its other half
    assert chosen.best.message["tool_calls"][0]["function"]["arguments"] == '{"river": "😀"}'
    said = "".join(piece.message.get("content") or "" for piece in pieces)
    assert said == chosen.text
    for piece in pieces[:-1]:
        text = json.dumps([piece.message.get("content"), piece.message.get("tool_calls")], ensure_ascii=False)
        assert text.encode("utf-8", "ignore").decode() == text or piece.message.get("content") == "\ud83d"
    arguments = [c["function"].get("arguments", "") for p in pieces for c in p.message.get("tool_calls", ())]
    assert "".join(arguments) == '{"river": "😀"}'
    assert all(isinstance(piece, Delta) for piece in pieces)
    assert json.loads(chosen.model_dump_json())["candidates"][0]["message"]["content"] == chosen.text
    assert chosen.best.score is not None


def test_a_refusal_among_the_parts_is_one():
    parts = [{"type": "refusal", "refusal": "I can't help with that."}]
    candidate = Candidate(model="m", message={"role": "assistant", "content": parts}, finish_reason="stop")
    request = Request(messages=({"role": "user", "content": "q"},))
    assert Complete().reason(candidate, request) == "refused: I can't help with that."

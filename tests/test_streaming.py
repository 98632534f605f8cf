from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import pytest
from loopback import Reply

from cappy_select import (
    Candidate,
    Delta,
    InputError,
    Matches,
    NoCandidates,
    NoGoodAnswer,
    Selection,
    Selector,
)
from cappy_select.ask.streaming import pieces_of

QUESTION = "The Marañón and the Ucayali meet near Nauta. Which rivers meet near Nauta?"
RIGHT, WRONG = "The Marañón and  the Ucayali.\n", "Peru has many rivers."
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"river": "Ucayali"}'}}
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]},
    },
}


def text_of(pieces):
    return "".join(piece.message.get("content") or "" for piece in pieces if isinstance(piece, Delta))


@pytest.fixture(params=["litellm", "openai"])
def one(request, provider, direct, default):
    """A selector that asks for one answer, through either client."""
    make = {"litellm": provider, "openai": direct}[request.param]
    return lambda **options: Selector([make("a")], samples=1, scorer=default, **options)


def test_the_only_answer_passes_through_as_it_is_written(loopback, one):
    loopback.replies["a"] = [Reply(text=RIGHT, pieces_delay_s=0.1)]
    seen = [(time.perf_counter(), piece) for piece in one().stream(QUESTION)]
    *pieces, selection = (piece for _, piece in seen)
    assert text_of(pieces) == RIGHT == selection.text
    assert seen[-1][0] - seen[0][0] > 0.2  # the first ones were there before the last was written
    assert isinstance(selection, Selection)
    assert selection.best.score is not None
    assert selection.best.finish_reason == "stop"
    assert (selection.usage.prompt_tokens, selection.usage.completion_tokens) == (10, 4)
    assert not selection.usage.estimated
    assert selection.cost == pytest.approx(18e-6)
    assert loopback.requests[0]["stream"] is True


def test_a_tool_call_passes_through_in_pieces_and_comes_out_whole(loopback, one):
    message = {"role": "assistant", "content": None, "tool_calls": [CALL, CALL | {"id": "2"}]}
    loopback.replies["a"] = [Reply(message=message, finish_reason="tool_calls")]
    *pieces, selection = one().stream(QUESTION, tools=[TOOL])
    assert [call["id"] for call in selection.best.message["tool_calls"]] == ["1", "2"]
    assert selection.best.message["tool_calls"][0]["function"] == CALL["function"]
    arguments = ["", ""]
    for piece in pieces:
        for call in piece.message.get("tool_calls", ()):
            arguments[call["index"]] += call["function"].get("arguments") or ""
    assert [json.loads(text) for text in arguments] == [{"river": "Ucayali"}] * 2


def test_of_several_answers_only_the_winner_is_streamed(loopback, provider, default):
    loopback.replies["a"], loopback.replies["b"] = [Reply(text=WRONG)], [Reply(text=RIGHT)]
    selector = Selector([provider("a"), provider("b")], samples=1, scorer=default)
    *pieces, selection = selector.stream(QUESTION)
    assert text_of(pieces) == RIGHT
    assert len(pieces) > 3
    assert len(selection.candidates) == 2
    assert not any(request.get("stream") for request in loopback.requests)


async def test_asynchronously_too(loopback, one, no_leaks):
    loopback.replies["a"] = [Reply(text=RIGHT)]
    *pieces, selection = [piece async for piece in one().astream(QUESTION)]
    assert text_of(pieces) == selection.text == RIGHT


async def test_who_stops_listening_stops_the_call(loopback, one, no_leaks):
    loopback.replies["a"] = [Reply(text=RIGHT, pieces_delay_s=5)]
    pieces = one().astream(QUESTION)
    await anext(pieces)
    began = time.perf_counter()
    await pieces.aclose()
    assert time.perf_counter() - began < 3


def test_a_failed_call_is_tried_again_while_nothing_was_handed_on(loopback, one):
    loopback.replies["a"] = [Reply(status=500), Reply(text=RIGHT)]
    *pieces, selection = one().stream(QUESTION)
    assert text_of(pieces) == selection.text == RIGHT
    assert len(loopback.requests) == 2


def test_a_stream_that_breaks_off_is_an_error_and_not_an_answer(loopback, one):
    loopback.replies["a"] = [Reply(text=RIGHT, hang_up="mid-body"), Reply(text=RIGHT)]
    seen = []
    with pytest.raises(NoCandidates) as caught:
        for piece in one().stream(QUESTION):
            seen.append(piece)  # noqa: PERF402 - what came before the error is looked at
    assert "the stream broke off" in str(caught.value)
    assert RIGHT.startswith(text_of(seen))
    assert text_of(seen) != RIGHT
    assert len(loopback.requests) == 1  # what was handed on can't be taken back, so it is not tried again
    assert caught.value.usage.prompt_tokens > 0


def events(*chunks):
    """A stream as a server sends it, word for word."""
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return Reply(body="".join([*lines, "data: [DONE]\n\n"]).encode(), content_type="text/event-stream")


def chunk(delta, finish=None, index=0):
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "a", "choices": [choice]}


def test_only_the_answer_that_was_asked_for_is_read(loopback, direct, default):
    loopback.replies["a"] = [
        events(
            chunk({"content": "The "}), chunk({"content": "No"}, index=1), chunk({}, "length", 1),
            chunk({"content": "Ucayali."}), chunk({}, "stop"),
        )
    ]  # fmt: skip
    *pieces, selection = Selector([direct("a")], samples=1, scorer=default).stream(QUESTION)
    assert text_of(pieces) == selection.text == "The Ucayali."
    assert selection.best.finish_reason == "stop"


def test_tool_calls_of_careless_servers_come_out_whole(loopback, direct, default):
    def call(**piece):
        return chunk({"tool_calls": [piece]})

    loopback.replies["a"] = [
        events(
            call(id="1", type="function", function={"name": "find", "arguments": ""}),
            call(function={"arguments": '{"river":'}),  # no index
            call(id="", function={"name": "", "arguments": ' "Nile"}'}),
            call(id="2", type="function", function={"name": "find", "arguments": '{"river": "Po"}'}),
            chunk({}, "tool_calls"),
        )
    ]
    *pieces, selection = Selector([direct("a")], samples=1, scorer=default).stream(QUESTION, tools=[TOOL])
    calls = selection.best.message["tool_calls"]
    assert [(c["id"], json.loads(c["function"]["arguments"])) for c in calls] == [
        ("1", {"river": "Nile"}),
        ("2", {"river": "Po"}),
    ]
    assert [c["index"] for piece in pieces for c in piece.message.get("tool_calls", ())] == [0, 0, 0, 1]


def test_a_stream_that_fails_behind_its_role_is_tried_again(loopback, one):
    busy = {"error": {"message": "busy", "type": "error", "code": 503}}
    loopback.replies["a"] = [events(chunk({"role": "assistant", "content": ""}), busy), Reply(text=RIGHT)]
    *pieces, selection = one().stream(QUESTION)
    assert text_of(pieces) == selection.text == RIGHT
    assert len(loopback.requests) == 2


def test_what_decides_after_the_answer_holds_its_pieces_back(loopback, one):
    loopback.replies["a"] = [Reply(text=WRONG)]
    for options, error in (({"gates": [Matches("Ucayali")]}, NoCandidates), ({"abstain_below": 9.0}, NoGoodAnswer)):
        seen = []
        with pytest.raises(error):
            for piece in one(**options).stream(QUESTION):
                seen.append(piece)  # noqa: PERF402
        assert seen == []


def test_a_bad_prompt_is_said_before_anything_is_asked(loopback, one):
    with pytest.raises(InputError):
        next(one().stream([]))
    assert loopback.requests == []


def test_streams_at_the_same_time_do_not_mix(loopback, provider, default):
    selector = Selector([provider("a")], samples=1, scorer=default)
    texts = [f"answer number {number}" for number in range(8)]
    loopback.replies["a"] = [Reply(text=text) for text in texts] + [Reply()]

    async def follow():
        return [piece async for piece in selector.astream(QUESTION)]

    async def all_at_once():
        return await asyncio.gather(*(follow() for _ in texts))

    streams = asyncio.run(all_at_once())
    assert sorted(text_of(pieces) for pieces in streams) == texts
    assert all(text_of(pieces) == pieces[-1].text for pieces in streams)


def test_a_whole_message_in_pieces_makes_the_same_message():
    message = {"role": "assistant", "content": "  two\n\nlines \t here ", "tool_calls": [CALL], "refusal": None}
    first, *words, call = pieces_of(message)
    assert first.message == {"role": "assistant", "refusal": None}
    assert "".join(word.message["content"] for word in words) == message["content"]
    assert call.message == {"tool_calls": [{"index": 0} | CALL]}
    assert [piece.message for piece in pieces_of({"role": "assistant", "content": None})] == [{"role": "assistant"}]


def test_a_provider_that_does_not_stream_is_asked_whole(default):
    class Whole:
        model = "whole"

        async def complete(self, request):
            return [Candidate(model=self.model, message={"role": "assistant", "content": RIGHT})]

    *pieces, selection = Selector([Whole()], samples=1, scorer=default).stream(QUESTION)
    assert text_of(pieces) == selection.text == RIGHT


SCRIPT = """
import signal, sys, threading
from cappy_select import OpenAIProvider, Selector
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
selector = Selector([OpenAIProvider("a", api_base=sys.argv[1], api_key="k")], samples=1)
pieces = selector.stream("q")
next(pieces)
print("begun", flush=True)
if sys.argv[2] == "interrupt":
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    try:
        list(pieces)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize(("how", "said"), [("interrupt", ["begun", "interrupted"]), ("leave", ["begun"])])
def test_a_stream_that_is_left_or_interrupted_holds_nobody_up(loopback, how, said):
    loopback.replies["a"] = [Reply(text="word " * 60, pieces_delay_s=2)]
    command = [sys.executable, "-c", SCRIPT, loopback.base, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=80)
    assert done.stdout.split() == said
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


class InHalves:
    """A provider of somebody's own, whose pieces end within characters."""

    model = "halves"

    async def complete(self, request):
        raise NotImplementedError

    async def stream(self, request):
        arguments = '{"river": "\ud83d', '\ude00"}'
        yield Delta(message={"role": "assistant", "content": "a \ud83d"})
        yield Delta(message={"content": "\ude00 b \ud83d"})
        yield Delta(message={"tool_calls": [{"index": 0, "function": {"name": "find", "arguments": arguments[0]}}]})
        yield Delta(message={"tool_calls": [{"index": 0, "function": {"arguments": arguments[1]}}]})
        call = CALL | {"function": {"name": "find", "arguments": "".join(arguments)}}
        message = {"role": "assistant", "content": "a \ud83d\ude00 b \ud83d", "tool_calls": [call]}
        yield Candidate(model=self.model, message=message, finish_reason="tool_calls", cost=0.0)


def test_pieces_of_any_provider_hold_whole_characters(default):
    *pieces, selection = Selector([InHalves()], samples=1, scorer=default).stream(QUESTION, tools=[TOOL])
    assert selection.text == "a 😀 b \ud83d" == text_of(pieces)
    calls = [call for piece in pieces for call in piece.message.get("tool_calls", ())]
    assert [call["function"]["arguments"] for call in calls] == ['{"river": "', '😀"}']
    assert selection.best.message["tool_calls"][0]["function"]["arguments"] == '{"river": "😀"}'

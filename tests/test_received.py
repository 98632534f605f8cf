"""What a server said, where LiteLLM gives it another name; and answers of which only a part came."""

from __future__ import annotations

import json

import pytest
from loopback import Reply, answering, completion

from cappy_select import (
    LiteLLMProvider,
    NoCandidates,
    ProviderError,
    Request,
    Selector,
    Usage,
)
from cappy_select.ask.providers.received import Heard, Received, listen

ASK = ({"role": "user", "content": "Name a river."},)
CHUNK = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def whole(reason, text="The Ucayali flows", **more):
    body = completion("m", Reply(text=text))
    body["choices"][0] |= {"finish_reason": reason} | more
    return Reply(body=json.dumps(body).encode())


def streamed(reason, text="The Ucayali flows", usage=None, **more):
    chunks = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": reason} | more]},
    ]
    if usage:
        chunks.append({"choices": [], "usage": usage})
    events = [json.dumps(CHUNK | chunk) for chunk in chunks if reason or chunk is not chunks[1]]
    body = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
    return Reply(body=body.encode(), content_type="text/event-stream")


@pytest.fixture(params=["openai", "litellm", "deepseek"])
def make(request, loopback, provider, direct):
    """A provider through OpenAI's client, through LiteLLM's use of it, and through LiteLLM's own reader of lines."""
    prices = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}

    def deepseek(name):
        return LiteLLMProvider(f"deepseek/{name}", api_base=loopback.base, api_key="sk-secret-1234", **prices)

    return {"openai": direct, "litellm": provider, "deepseek": deepseek}[request.param]


async def end_of(made, stream):
    request = Request(messages=ASK, timeout_s=10)
    if not stream:
        return await made.complete(request)
    return [piece async for piece in made.stream(request)][-1:]


@pytest.mark.parametrize("reply", [whole, streamed])
@pytest.mark.parametrize(
    "reason", ["error", "abort", "MAX_TOKENS", "SAFETY", "network_error", "content_filter: RECITATION"]
)
def test_an_answer_that_is_not_whole_never_wins(loopback, make, default, reply, reason):
    loopback.replies["half"] = [reply(reason)]
    selector = Selector([make("half")], samples=1, scorer=default, max_retries=0)
    with pytest.raises((NoCandidates, ProviderError)) as caught:
        if reply is whole:
            selector.select("Name a river.")
        else:
            list(selector.stream("Name a river."))
    said = str(caught.value).lower()
    assert any(word in said for word in (reason.split(":")[0].lower(), "length", "content_filter"))


@pytest.mark.parametrize("reply", [whole, streamed])
async def test_a_word_that_nobody_knows_is_kept_and_can_win(loopback, make, reply):
    loopback.replies["m"] = [reply("a_word_of_tomorrow")]
    (candidate,) = await end_of(make("m"), reply is streamed)
    assert candidate.finish_reason == "a_word_of_tomorrow"


@pytest.mark.parametrize("reply", [whole, streamed])
async def test_a_gateway_s_stop_does_not_hide_what_its_provider_said(loopback, make, reply):
    loopback.replies["m"] = [reply("stop", native_finish_reason="SAFETY")]
    (candidate,) = await end_of(make("m"), reply is streamed)
    assert candidate.finish_reason == "SAFETY"
    loopback.replies["m"] = [reply("stop", native_finish_reason="end_turn")]
    (candidate,) = await end_of(make("m"), reply is streamed)
    assert candidate.finish_reason == "stop"


async def test_a_whole_answer_without_a_reason_is_one(loopback, direct):
    loopback.replies["m"] = [whole(None)]
    (candidate,) = await end_of(direct("m"), stream=False)
    assert candidate.finish_reason is None


async def test_a_stream_that_never_says_how_it_ends_broke_off(loopback, make):
    loopback.replies["m"] = [streamed(None)]
    with pytest.raises(ProviderError) as caught:
        await end_of(make("m"), stream=True)
    assert caught.value.kind in ("connection", "server")


ODD = [-5, "7", 1.5, True, float("nan"), 10**12, None, [], {}]


@pytest.mark.parametrize("figure", ODD)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_figure_that_is_none_is_estimated(loopback, make, figure, stream):
    usage = {"prompt_tokens": figure, "completion_tokens": figure, "total_tokens": figure}
    body = completion("m", Reply(text="The Ucayali.")) | {"usage": usage}
    loopback.replies["m"] = [streamed("stop", usage=usage) if stream else Reply(body=json.dumps(body).encode())]
    (candidate,) = await end_of(make("m"), stream)
    assert candidate.usage.estimated or figure in ("7", True)  # which OpenAI's client reads as numbers
    assert 0 < candidate.usage.prompt_tokens < 1000
    assert 0 < candidate.usage.completion_tokens < 1000
    assert candidate.cost is None or 0 < candidate.cost < 1


def choices(*given, **more):
    body = completion("m", Reply()) | {"choices": [{"index": n} | choice for n, choice in enumerate(given)]} | more
    return Reply(body=json.dumps(body).encode())


GOOD = {"message": {"role": "assistant", "content": "The Ucayali."}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"message": None, "finish_reason": "content_filter"}, "refused: content_filter"),
        ({"message": None, "finish_reason": None}, "empty answer"),
        ({"finish_reason": "SAFETY"}, "refused: SAFETY"),
        (GOOD | {"error": {"code": 502, "message": "it went away"}}, "failed: error: it went away"),
        (
            {"message": {"role": "assistant", "content": None, "refusal": "I can't."}, "finish_reason": "stop"},
            "refused: I can't.",
        ),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_one_lost_choice_of_several_loses_only_itself(loopback, make, default, lost, said, order):
    loopback.replies["m"] = [choices(*[GOOD, lost][::order])]
    chosen = Selector([make("m")], samples=2, scorer=default, max_retries=0).select("Name a river.")
    assert chosen.text == "The Ucayali."
    assert chosen.candidates[1].rejected == said
    assert chosen.usage == Usage(prompt_tokens=10, completion_tokens=4)


def test_a_choice_that_is_null_loses_only_itself(loopback, direct, default):
    body = completion("m", Reply()) | {"choices": [None, {"index": 1} | GOOD]}
    loopback.replies["m"] = [Reply(body=json.dumps(body).encode())]
    assert (
        Selector([direct("m")], samples=2, scorer=default, max_retries=0).select("Name a river.").text == "The Ucayali."
    )


def test_a_refusal_without_a_message_is_one_of_content(loopback, make, default):
    loopback.replies["m"] = [choices({"message": None, "finish_reason": "content_filter"})]
    with pytest.raises(NoCandidates) as caught:
        Selector([make("m")], samples=1, scorer=default, max_retries=0).select("Name a river.")
    assert [error.kind for error in caught.value.exceptions] == ["content_policy"]


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        ({"choices": [{"finish_reason": "error"}, {"finish_reason": None}]}, ["error", ""]),
        ({"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]}, ["MALFORMED_FUNCTION_CALL"]),
        ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, ["PROHIBITED_CONTENT"]),
        ({"content": [], "stop_reason": "pause_turn"}, ["pause_turn"]),
        ({"output": {}, "stopReason": "malformed_tool_use"}, ["malformed_tool_use"]),
        ({"message": {}, "finish_reason": "ERROR_TOXIC"}, ["ERROR_TOXIC"]),
        ({"message": {}, "done_reason": "load"}, ["load"]),
        ({"results": [{"stop_reason": "token_limit"}]}, ["token_limit"]),
        ({"results": [{"completionReason": "CONTENT_FILTERED"}]}, ["CONTENT_FILTERED"]),
        ({"generations": [{"finish_reason": "ERROR"}]}, ["ERROR"]),
        ({"outputs": [{"stop_reason": "length"}]}, ["length"]),
        ([{"generated_text": "x", "details": {"finish_reason": "length"}}], ["length"]),
        ({"object": "response", "status": "completed", "incomplete_details": None}, ["completed"]),
        (
            {"object": "response", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            ["max_output_tokens"],
        ),
        ({"choices": "none", "status": "ok"}, [""]),
        ("no JSON", []),
        (7, []),
    ],
)
def test_why_an_answer_ended_is_found_in_each_vendors_format(body, ends):
    received = Received()
    assert not received.is_there
    received({"log_event_type": "pre_api_call", "original_response": None})
    assert not received.is_there
    received({"log_event_type": "post_api_call", "original_response": body if body == "no JSON" else json.dumps(body)})
    assert received.is_there
    assert received.ends() == ends


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        (['data: {"type": "message_delta", "delta": {"stop_reason": "refusal"}}'], "refusal"),
        ([b'data: {"candidates": [{"finishReason": "SAFETY"}]}'], "SAFETY"),
        (['{"done": true, "done_reason": "length"}'], "length"),
        (['data: {"type": "message-end", "delta": {"finish_reason": "ERROR"}}'], "ERROR"),
        (['data: {"response": {"object": "response", "status": "failed"}}'], "failed"),
        (["event: x", "", "data: [DONE]", "data: {broken"], ""),
    ],
)
async def test_why_a_stream_ended_is_heard_in_each_vendors_lines(lines, end):
    async def each():
        for line in lines:
            yield line

    class Wrapped:
        completion_stream = each()

    wrapped = Wrapped()
    heard = listen(wrapped)
    assert [line async for line in wrapped.completion_stream] == lines
    assert heard.end == end


def test_what_is_no_stream_of_litellm_is_not_listened_to():
    assert listen(object()) is None
    assert Heard().broke_off is False


# What LiteLLM reads with code of its own, and does not log before it has read it.
OF_LITELLMS_OWN = {
    "ollama, cut off": ("ollama/m", {"response": "The Nile, which", "done": True, "done_reason": "length"}, "cut off"),
    "ollama, not done": ("ollama/m", {"response": "The Nile, which", "done": False}, "cut off"),
    "ollama chat, not done": (
        "ollama_chat/m", {"message": {"role": "assistant", "content": "The Nile, which"}, "done": False}, "cut off"
    ),
    "ollama, an error": ("ollama/m", {"error": "the model is overloaded"}, "server: the model is overloaded"),
    **{
        f"cohere, {word}": (
            "cohere_chat/command-r",
            {
                "id": "x",
                "message": {"role": "assistant", "content": [{"type": "text", "text": "The Nile, which"}]},
                "finish_reason": word,
                "usage": {"tokens": {"input_tokens": 5, "output_tokens": 3}},
            },
            said,
        )
        for word, said in (
            ("ERROR", "failed"), ("ERROR_LIMIT", "cut off"), ("TIMEOUT", "failed"), ("MAX_TOKENS", "cut off"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("case", OF_LITELLMS_OWN)
def test_what_litellm_reads_with_code_of_its_own_is_looked_at_as_it_came(case, default):
    model, body, said = OF_LITELLMS_OWN[case]
    with answering(json.dumps(body).encode()) as (host, _):
        selector = Selector(
            [LiteLLMProvider(model, api_base=host, api_key="sk-secret-1234")], samples=1, scorer=default, max_retries=0
        )
        with pytest.raises(NoCandidates) as caught:
            selector.select("What is the longest river of Africa?")
    assert said in str(caught.value.exceptions[0])


@pytest.mark.parametrize("model", ["openai/m", "ollama/m", "cohere_chat/command-r", "anthropic/claude-haiku-4-5"])
@pytest.mark.parametrize("body", [b"<html>no</html>", b"\xff\xfe", b'{"created": ' + b"9" * 5000 + b"}"])
def test_what_came_and_can_t_be_read_is_paid_for_and_not_asked_again(model, body, default):
    with answering(body) as (host, asked):
        base = host + "/v1" if model == "openai/m" else host
        provider = LiteLLMProvider(
            model, api_base=base, api_key="sk-secret-1234", input_cost_per_token=1e-6, output_cost_per_token=1e-6
        )
        with pytest.raises(NoCandidates) as caught:
            Selector([provider], samples=1, scorer=default, max_retries=2).select("Name a river.")
    assert caught.value.exceptions[0].kind == "invalid_response"
    assert len(asked) == 1
    assert caught.value.cost > 0


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ({"object": "error", "message": "Rate limit reached", "code": 429}, "rate_limit", "Rate limit reached"),
        ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, "rate_limit", "rate limit"),
        ({"error_code": 336501, "error_msg": "Rate limit reached"}, "rate_limit", "Rate limit reached"),
        ({"errors": [{"message": "The service is unavailable"}]}, "server", "unavailable"),
        ({"detail": "Rate limit exceeded"}, "rate_limit", "Rate limit exceeded"),
        ({"status": "error", "message": "internal error"}, "server", "internal error"),
        ({"error": True, "message": "Too many requests"}, "rate_limit", "Too many requests"),
    ],
)
async def test_an_error_in_a_200_is_one_under_whatever_name(loopback, make, body, kind, said):
    loopback.replies["m"] = [Reply(body=json.dumps(body).encode())]
    with pytest.raises(ProviderError, match=said) as caught:
        await end_of(make("m"), stream=False)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    "more", [{"error": {"message": "went away", "code": 502}}, {"base_resp": {"status_code": 1027}}]
)
def test_an_answer_beside_an_error_does_not_win(loopback, make, default, more):
    body = completion("m", Reply(text="The Ucayali"))
    if "error" in more:
        body["choices"][0]["message"] |= more
    else:
        body |= more
    loopback.replies["m"] = [Reply(body=json.dumps(body).encode())]
    with pytest.raises(NoCandidates):
        Selector([make("m")], samples=1, scorer=default, max_retries=0).select("Name a river.")

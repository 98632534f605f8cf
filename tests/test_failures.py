"""What servers say when they can't or won't: its kind and its words, for either client, with any status."""

from __future__ import annotations

import json
import sys

import pytest
from loopback import Reply, completion

from cappy_select import NoCandidates, ProviderError, Request, Selector, Usage
from cappy_select.ask.providers.failures import error_in, failure_from, failure_of, reason_in
from cappy_select.core.types import RETRYABLE

ASK = ({"role": "user", "content": "Name a river."},)


@pytest.fixture(params=["litellm", "openai"])
def make(request, provider, direct):
    return {"litellm": provider, "openai": direct}[request.param]


async def failed(made, **options):
    with pytest.raises(ProviderError) as caught:
        await made.complete(Request(messages=ASK, timeout_s=10, **options))
    return caught.value


def body(value, **more):
    return Reply(body=value if isinstance(value, bytes) else json.dumps(value).encode(), **more)


OVERLONG = {
    "OpenAI": {"message": "This model's maximum context length is 8192 tokens.", "code": "context_length_exceeded"},
    "vLLM": {"message": "The decoder prompt (length 9000) is longer than the maximum model length of 4096."},
    "llama.cpp": {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"},
    "Ollama": {"message": "input length exceeds maximum context length"},
    "Ollama, newer": {"message": "prompt too long; exceeded max context length by 12 tokens"},
    "Anthropic": {"message": "prompt is too long: 201000 tokens > 200000 maximum", "type": "invalid_request_error"},
    "Anthropic, with the answer": {
        "message": "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"
    },
    "Gemini": {"message": "The input token count (1048580) exceeds the maximum number of tokens allowed (1048576)."},
    "Mistral": {"message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum"},
    "Cohere": {"message": "too many tokens: the total number of tokens in the prompt cannot exceed 4081"},
    "Bedrock": {"message": "Input is too long for requested model."},
    "TGI": {"message": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"},
    "TGI, the prompt": {"message": "`inputs` must have less than 1024 tokens. Given: 2000"},
    "OpenRouter": {"message": "This endpoint's maximum context length is 4096 tokens. However, you requested 5000"},
    "DeepSeek": {"message": "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens"},
    "xAI": {"message": "This model's maximum prompt length is 131072 but the request contains 537812 tokens."},
    "Groq": {"message": "Please reduce the length of the messages or completion."},
    "Watsonx": {"message": "the number of input tokens 9000 cannot exceed the total tokens limit 4096 for this model"},
}


@pytest.mark.parametrize("vendor", OVERLONG)
async def test_a_prompt_that_is_too_long_is_said_in_many_words(loopback, make, vendor):
    loopback.replies["m"] = [body({"error": OVERLONG[vendor]}, status=400)]
    error = await failed(make("m"))
    assert error.kind == "context_window", error
    assert OVERLONG[vendor]["message"][:40] in error.message


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, {"message": "max_tokens is too large: 5000. This model supports at most 4096 completion tokens."}),
        (400, {"message": "Unknown parameter: 'top_q'."}),
        (422, {"message": "temperature must be at most 2"}),
    ],
)
async def test_other_bad_requests_stay_bad_requests(loopback, make, status, said):
    loopback.replies["m"] = [body({"error": said}, status=status)]
    assert (await failed(make("m"))).kind == "bad_request"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, {"message": "The response was filtered", "code": "content_filter"}),
        (400, {"message": "Your request was rejected as a result of our safety system."}),
        (400, {"message": "Output data may contain inappropriate content.", "code": "data_inspection_failed"}),
        (403, {"message": "Your chosen model requires moderation and your input was flagged", "code": 403}),
        (403, {"message": "Content violates usage guidelines."}),
    ],
)
async def test_a_request_that_a_filter_stopped_is_one_of_content(loopback, direct, status, said):
    loopback.replies["m"] = [body({"error": said}, status=status)]
    assert (await failed(direct("m"))).kind == "content_policy"


REASONS = {
    "an object": {"error": {"message": "no such river", "code": 7}},
    "a text for it": {"error": "no such river"},
    "message": {"message": "no such river", "object": "error"},
    "detail": {"detail": "no such river"},
    "details": {"detail": [{"loc": ["body", "messages"], "msg": "no such river", "type": "value_error"}]},
    "errors": {"errors": [{"message": "no such river"}]},
    "a list": [{"error": {"code": 400, "message": "no such river", "status": "INVALID_ARGUMENT"}}],
    "twice": {"error": {"error": {"message": "no such river"}}},
    "plain text": b"no such river",
    "a page": b"<!DOCTYPE html><html><head><title>400: no such river</title></head><body>nginx</body></html>",
    "JSON as a text": {"error": {"message": '{"error": {"message": "no such river"}}'}},
}


@pytest.mark.parametrize("form", REASONS)
async def test_the_reason_is_found_in_any_form(loopback, make, form):
    loopback.replies["m"] = [body(REASONS[form], status=400)]
    error = await failed(make("m"))
    assert "no such river" in error.message
    assert not any(mark in error.message for mark in '{}<>"')
    assert error.kind == "bad_request"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (None, ""),
        (True, ""),
        ({}, ""),
        ([], ""),
        (7, "7"),
        ({"code": 5, "x": None}, "code: 5"),
        ("<html><body>x", "a web page"),
    ],
)
def test_an_error_without_a_sentence_says_what_it_has(said, text):
    assert reason_in(said) == text


IN_200 = {
    "429": ({"message": "slow down", "code": 429}, "rate_limit"),
    "429 as text": ({"message": "slow down", "code": "429"}, "rate_limit"),
    "502": ({"message": "the provider is gone", "code": 502}, "server"),
    "a status": ({"message": "x", "status": 503}, "server"),
    "408": ({"message": "x", "code": 408}, "timeout"),
    "a word for it": ({"message": "x", "code": "rate_limit_exceeded"}, "rate_limit"),
    "Google's word": ({"message": "x", "status": "RESOURCE_EXHAUSTED"}, "rate_limit"),
    "a type": ({"message": "x", "type": "overloaded_error"}, "server"),
    "a sentence": ({"message": "Rate limit exceeded, try again"}, "rate_limit"),
    "a text": ("the model is overloaded", "server"),
    "a text of time": ("upstream timed out", "timeout"),
    "a key": ({"message": "invalid api key"}, "auth"),
    "too long": ({"message": "prompt is too long: 9 tokens > 8 maximum", "code": 400}, "context_window"),
    "a filter": ({"code": "content_filter", "message": "x"}, "content_policy"),
    "a list": (["upstream went away"], "server"),
    "no known word": ("it is Tuesday", "invalid_response"),
}


@pytest.mark.parametrize("case", IN_200)
@pytest.mark.parametrize("place", ["body", "beside an answer", "choice"])
async def test_an_error_in_a_200_is_a_failure_of_its_kind(loopback, make, case, place):
    error, kind = IN_200[case]
    whole = completion("m", Reply(text="Half an ans"))
    if place == "body":
        loopback.replies["m"] = [body({"error": error})]
    elif place == "beside an answer":
        loopback.replies["m"] = [body(whole | {"error": error})]
    else:
        choice = whole["choices"][0] | {"error": error}
        loopback.replies["m"] = [body(whole | {"choices": [choice]})]
    failure = await failed(make("m"))
    assert failure.kind == kind, failure
    assert len(loopback.requests) == 1
    if place != "body":  # it was written, and is billed
        assert failure.usage == Usage(prompt_tokens=10, completion_tokens=4)
        assert failure.cost == pytest.approx(18e-6)


@pytest.mark.parametrize("case", ["429", "502", "a type", "too long"])
async def test_an_error_in_a_stream_is_a_failure_of_its_kind(loopback, make, case):
    error, kind = IN_200[case]
    begun = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    begun |= {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Half"}, "finish_reason": None}]}
    events = f"data: {json.dumps(begun)}\n\ndata: {json.dumps({'error': error})}\n\ndata: [DONE]\n\n"
    loopback.replies["m"] = [Reply(body=events.encode(), content_type="text/event-stream")]
    with pytest.raises(ProviderError) as caught:
        async for _ in make("m").stream(Request(messages=ASK, timeout_s=10)):
            pass
    assert caught.value.kind == kind, caught.value


@pytest.mark.parametrize("error", [None, {}, "", False, {"message": None, "code": None}])
async def test_no_error_is_none(loopback, make, error):
    assert error_in({"error": error}) is None
    loopback.replies["m"] = [body(completion("m", Reply(text="The Ucayali.")) | {"error": error})]
    (candidate,) = await make("m").complete(Request(messages=ASK))
    assert candidate.text == "The Ucayali."


def test_what_may_pass_is_tried_again_and_what_won_t_is_not(loopback, make, default):
    answer = body(completion("m", Reply(text="The Ucayali.")))
    for case, (error, kind) in IN_200.items():
        loopback.replies[case] = [body({"error": error}), answer]
        selector = Selector([make(case)], samples=1, scorer=default, max_retries=1)
        try:
            assert selector.select("Name a river.").text == "The Ucayali."
        except NoCandidates:
            assert kind not in RETRYABLE, case
        else:
            assert kind in RETRYABLE, case


async def test_an_error_s_own_words_hold_no_key(loopback, make):
    loopback.replies["m"] = [body({"error": {"message": "bad key sk-secret-1234", "code": 401}})]
    failure = await failed(make("m"))
    assert failure.kind == "auth"
    assert "secret" not in failure.message


UNREADABLE = {
    "a number for a text": {"role": "assistant", "content": 5},
    "a list for a message": [1],
    "a text for a message": "hello",
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_billed_answer_that_is_none_is_asked_for_once_and_counted(loopback, make, default, case):
    whole = completion("m", Reply())
    whole["choices"][0]["message"] = UNREADABLE[case]
    loopback.replies["m"] = [body(whole)]
    with pytest.raises(NoCandidates) as caught:
        Selector([make("m")], samples=1, scorer=default, max_retries=2).select("Name a river.")
    assert [error.kind for error in caught.value.exceptions] == ["invalid_response"]
    assert len(loopback.requests) == 1
    assert caught.value.cost == pytest.approx(18e-6)
    assert "Traceback" not in str(caught.value)
    assert "site-packages" not in str(caught.value)


async def test_a_body_in_no_encoding_is_invalid(loopback, make):
    whole = json.dumps(completion("m", Reply(text="ab"))).encode()
    loopback.replies["m"] = [body(whole.replace(b'"ab"', b'"a\xff"'))]
    failure = await failed(make("m"))
    assert failure.kind == "invalid_response"
    assert failure.kind not in RETRYABLE


def test_no_traceback_and_no_place_of_this_machine_is_in_a_message():
    place = sys.executable
    error = ValueError(
        f"no answer in {place}: it broke\nTraceback (most recent call last):\n"
        f'  File "{place}", line 1, in x\n    boom()'
    )
    said = failure_of(error, model="m").message
    assert said == "no answer in ...: it broke"
    assert failure_of(ValueError("Traceback (most recent call last):\n boom"), model="m").message
    kept = "https://api.example.com/v1/chat and /v1/models: 5 tokens/min/model at 1/2"
    assert failure_from(kept, model="m").message == kept


def test_half_a_character_in_a_message_can_be_stored():
    assert failure_from({"message": "a \ud83d b"}, model="m").message.encode()

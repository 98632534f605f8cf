from __future__ import annotations

import asyncio
import json
import socket
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from loopback import Reply, completion

from cappy_select import InputError, LiteLLMProvider, ProviderError, Request, Usage
from cappy_select.ask.prices import estimated_usage
from cappy_select.ask.providers import as_providers

ASK = ({"role": "user", "content": "Name a river."},)


async def complete(provider, **options):
    return await provider.complete(Request(messages=ASK, timeout_s=5, **options))


async def test_an_answer_comes_back_verbatim_with_its_bill(loopback, provider):
    loopback.replies["m"] = [Reply(text="  The Ucayali.\n", finish_reason="length")]
    (candidate,) = await complete(provider("m"), params={"temperature": 0.9, "max_tokens": 64})
    assert candidate.text == "  The Ucayali.\n"
    assert candidate.finish_reason == "length"
    assert candidate.usage == Usage(prompt_tokens=10, completion_tokens=4)
    assert candidate.cost == pytest.approx(10e-6 + 4 * 2e-6)
    assert loopback.requests[0] == {
        "model": "m", "messages": list(ASK), "temperature": 0.9, "max_tokens": 64,
    }  # fmt: skip
    assert loopback.keys == ["sk-secret-1234"]


async def test_a_tool_call_comes_back_verbatim(loopback, provider):
    call = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"q": "river"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    loopback.replies["m"] = [Reply(message=message, finish_reason="tool_calls")]
    (candidate,) = await complete(provider("m"))
    (found,) = candidate.message["tool_calls"]
    assert {key: found[key] for key in call} == call
    assert candidate.text == ""


async def test_several_choices_share_the_bill_exactly(loopback, provider):
    loopback.replies["m"] = [Reply(texts=("a", "b", "c"), usage={"prompt_tokens": 10, "completion_tokens": 7})]
    candidates = await complete(provider("m"), n=3)
    assert loopback.requests[0]["n"] == 3
    assert [candidate.text for candidate in candidates] == ["a", "b", "c"]
    total = sum((candidate.usage for candidate in candidates), Usage())
    assert total == Usage(prompt_tokens=10, completion_tokens=7)
    assert sum(candidate.cost for candidate in candidates) == pytest.approx(10e-6 + 14e-6)


async def test_an_unknown_price_is_none_and_never_zero(loopback, provider):
    unpriced = provider("m", input_cost_per_token=None, output_cost_per_token=None)
    (candidate,) = await complete(unpriced)
    assert candidate.cost is None
    assert unpriced.price(Usage(prompt_tokens=1)) is None


async def test_a_known_model_is_priced_by_litellm(loopback, provider):
    known = provider("gpt-4o-mini", input_cost_per_token=None, output_cost_per_token=None)
    (candidate,) = await complete(known)
    assert candidate.cost is not None
    assert candidate.cost > 0
    assert known.price(candidate.usage) == pytest.approx(candidate.cost)


async def test_missing_usage_is_flagged(loopback, provider):
    loopback.replies["m"] = [Reply(usage=None)]
    (candidate,) = await complete(provider("m"))
    assert candidate.usage.estimated
    assert candidate.usage.prompt_tokens > 0
    assert candidate.usage.completion_tokens > 0
    assert candidate.cost > 0


FAILURES = {
    "429": (Reply(status=429, headers={"Retry-After": "3"}), "rate_limit"),
    "500": (Reply(status=500), "server"),
    "503": (Reply(status=503), "server"),
    "401": (Reply(status=401, error="bad key sk-secret-1234"), "auth"),
    "403": (Reply(status=403), "auth"),
    "400": (Reply(status=400), "bad_request"),
    "404": (Reply(status=404), "bad_request"),
    "context window": (Reply(status=400, error="This model's maximum context length is 8 tokens."), "context_window"),
    "hang up": (Reply(hang_up="at once"), "connection"),
    "hang up mid-body": (Reply(hang_up="mid-body"), "connection"),
    "no JSON": (Reply(body=b"<html>proxy error</html>"), "invalid_response"),
    "no choices": (Reply(body=b'{"id": "x", "object": "chat.completion", "choices": []}'), "invalid_response"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_every_failure_has_its_kind_and_is_tried_once(loopback, provider, case):
    reply, kind = FAILURES[case]
    loopback.replies["m"] = [reply]
    with pytest.raises(ProviderError) as caught:
        await complete(provider("m"))
    assert caught.value.kind == kind, str(caught.value)
    assert caught.value.model == "openai/m"
    assert len(loopback.requests) == 1  # LiteLLM's and the SDK's own retries are off
    assert "sk-secret" not in str(caught.value)
    if case == "429":
        assert caught.value.retry_after_s == 3


async def test_a_timeout_is_one(loopback, provider):
    loopback.replies["m"] = [Reply(delay_s=30)]
    with pytest.raises(ProviderError) as caught:
        await provider("m").complete(Request(messages=ASK, timeout_s=0.3))
    assert caught.value.kind == "timeout"


async def test_cancelling_a_call_passes_through(loopback, provider):
    loopback.replies["m"] = [Reply(delay_s=30)]
    task = asyncio.create_task(complete(provider("m")))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_else_the_response_carries_is_kept(loopback, provider):
    body = completion("m", Reply()) | {"citations": ["https://example.org"], "system_fingerprint": "fp_1"}
    loopback.replies["m"] = [Reply(body=json.dumps(body).encode())]
    (candidate,) = await complete(provider("m"))
    assert candidate.response_fields["citations"] == ["https://example.org"]
    assert candidate.response_fields["system_fingerprint"] == "fp_1"


async def test_a_call_without_choices_is_billed_what_it_says(loopback, provider):
    body = completion("m", Reply()) | {"choices": []}
    loopback.replies["m"] = [Reply(body=json.dumps(body).encode())]
    with pytest.raises(ProviderError) as caught:
        await complete(provider("m"))
    assert caught.value.usage == Usage(prompt_tokens=10, completion_tokens=4)
    assert caught.value.cost == pytest.approx(18e-6)


async def test_no_key_is_in_a_message(loopback, provider, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "from-the-environment")
    pad = "x" * 490
    for error in ("sk-secret-1234", "from-the-environment", "sk-another-key-1234", "Bearer abcdefgh123"):
        loopback.replies["m"] = [Reply(status=401, error=f"{pad} {error}")]
        with pytest.raises(ProviderError) as caught:
            await complete(provider("m"))
        assert "xxxx" in caught.value.message
        assert error.split()[-1][:4] not in caught.value.message.replace("x", "")


def test_images_are_not_counted_as_text():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    usage = estimated_usage([{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}])
    assert usage.prompt_tokens == 4
    assert usage.estimated


def test_a_name_without_a_provider_is_an_error_at_construction():
    with pytest.raises(InputError, match="openai/gpt-5-mini"):
        LiteLLMProvider("nonsense")


def test_half_a_price_is_an_error():
    with pytest.raises(InputError, match="both"):
        LiteLLMProvider("openai/m", input_cost_per_token=1e-6)


def test_a_key_is_not_shown():
    assert "sk-secret" not in repr(LiteLLMProvider("openai/m", api_key="sk-secret"))


@pytest.mark.parametrize("models", [[], "openai/m", None, [3]])
def test_models_must_be_names_or_providers(models):
    with pytest.raises(InputError, match="model"):
        as_providers(models)


def test_what_a_model_refuses_is_known_before_it_is_asked():
    params = {"temperature": 0.7, "top_k": 4, "max_tokens": 9, "n": 2, "seed": 1}
    assert LiteLLMProvider("openai/gpt-5-mini").unsupported(params) == {"temperature", "top_k"}
    assert LiteLLMProvider("openai/gpt-5-mini").unsupported({"temperature": 1.0}) == set()
    assert LiteLLMProvider("openai/gpt-4o-mini").unsupported(params) == {"top_k"}
    assert LiteLLMProvider("anthropic/claude-haiku-4-5").unsupported(params) == {"n", "seed"}
    assert LiteLLMProvider("openai/m", supports={"top_k"}).unsupported(params) == set()


async def test_no_key_is_in_the_traceback_either(loopback, provider):
    loopback.replies["m"] = [Reply(status=401, error="bad key sk-secret-1234")]
    with pytest.raises(ProviderError) as caught:
        await complete(provider("m"))
    assert "sk-secret" not in "".join(traceback.format_exception(caught.value))


def test_the_window_and_the_length_of_a_prompt_are_litellms():
    assert LiteLLMProvider("openai/gpt-4o-mini").max_prompt_tokens(100) == 128_000
    assert LiteLLMProvider("openai/unheard-of").max_prompt_tokens(100) is None
    assert 5 <= LiteLLMProvider("openai/gpt-4o-mini").count_tokens(ASK) <= 20


@pytest.mark.parametrize("detail", ["high", "low", "auto"])
def test_counting_tokens_fetches_no_image(provider, detail):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/picture.png"
        image = {"type": "image_url", "image_url": {"url": url, "detail": detail}}
        message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}
        with ThreadPoolExecutor(1) as pool:
            counting = pool.submit(provider("m").count_tokens, [message])
            with pytest.raises(TimeoutError):
                server.accept()
            assert counting.result(30) > 10

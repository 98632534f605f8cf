from __future__ import annotations

import asyncio
import gc
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from loopback import Reply, completion
from test_providers_litellm import FAILURES

from cappy_select import InputError, OpenAIProvider, ProviderError, Request, Selector, Usage
from cappy_select.ask.providers import as_providers

ASK = ({"role": "user", "content": "Name a river."},)


async def complete(provider, **options):
    return await provider.complete(Request(messages=ASK, timeout_s=5, **options))


async def test_an_answer_comes_back_verbatim_with_its_bill_and_likelihood(loopback, direct):
    loopback.replies["m"] = [Reply(text="  The Ucayali.\n", finish_reason="length", logprobs=[-0.5, -1.5])]
    params = {"temperature": 0.9, "max_tokens": 64, "logprobs": True, "top_k": 7, "min_tokens": 3}
    (candidate,) = await complete(direct("m", temperature=0.1), params=params)
    assert candidate.text == "  The Ucayali.\n"
    assert candidate.finish_reason == "length"
    assert candidate.usage == Usage(prompt_tokens=10, completion_tokens=4)
    assert candidate.cost == pytest.approx(18e-6)
    assert (candidate.logprob_sum, candidate.logprob_mean) == (-2.0, -1.0)
    assert loopback.requests[0] == {"model": "m", "messages": list(ASK)} | params
    assert loopback.keys == ["sk-secret-1234"]


async def test_several_choices_share_the_bill_exactly(loopback, direct):
    loopback.gives_n = True
    loopback.replies["m"] = [Reply(text=text) for text in "abc"]
    candidates = await complete(direct("m"), n=3)
    assert [candidate.text for candidate in candidates] == ["a", "b", "c"]
    assert sum((candidate.usage for candidate in candidates), Usage()) == Usage(prompt_tokens=10, completion_tokens=4)


@pytest.mark.parametrize("case", FAILURES)
async def test_every_failure_has_its_kind_and_is_tried_once(loopback, direct, case):
    reply, kind = FAILURES[case]
    loopback.replies["m"] = [reply]
    with pytest.raises(ProviderError) as caught:
        await complete(direct("m"))
    assert caught.value.kind == kind, str(caught.value)
    assert caught.value.model == "m"
    assert len(loopback.requests) == 1
    assert "sk-secret" not in str(caught.value)
    if case == "429":
        assert caught.value.retry_after_s == 3


async def test_a_page_instead_of_an_answer_is_invalid(loopback, direct):
    loopback.replies["m"] = [Reply(body=b"<html>sign in</html>", content_type="text/html")]
    with pytest.raises(ProviderError, match="no chat completion but str") as caught:
        await complete(direct("m"))
    assert caught.value.kind == "invalid_response"


async def test_a_retry_after_may_be_a_date(loopback, direct):
    loopback.replies["m"] = [Reply(status=429, headers={"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"})]
    with pytest.raises(ProviderError) as caught:
        await complete(direct("m"))
    assert caught.value.retry_after_s > 10**9


async def test_a_compatible_servers_own_codes_are_understood(loopback, direct):
    body = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    loopback.replies["m"] = [Reply(status=400, error=json.dumps(body))]
    with pytest.raises(ProviderError) as caught:
        await complete(direct("m"))
    assert caught.value.kind == "context_window"


def test_each_event_loop_has_a_client_of_its_own(loopback, direct, tiny):
    selector = Selector([direct("m")], samples=1, scorer=tiny)
    assert [asyncio.run(selector.aselect("q")).text for _ in range(3)] == ["ok"] * 3
    assert selector.select("q").text == "ok"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_loops_that_are_over_leave_no_connections(loopback, direct, tiny):
    selector = Selector([direct("m")], samples=4, scorer=tiny)
    open_files = []
    for _ in range(8):
        asyncio.run(selector.aselect("q"))
        gc.collect()
        open_files.append(len(list(Path("/proc/self/fd").iterdir())))
    assert open_files[-1] <= open_files[1] + 4


async def test_a_timeout_is_one(loopback, direct):
    loopback.replies["m"] = [Reply(delay_s=30)]
    with pytest.raises(ProviderError) as caught:
        await direct("m").complete(Request(messages=ASK, timeout_s=0.3))
    assert caught.value.kind == "timeout"


async def test_an_unknown_price_is_none(loopback, direct):
    unpriced = direct("m", input_cost_per_token=None, output_cost_per_token=None)
    (candidate,) = await complete(unpriced)
    assert candidate.cost is None
    with pytest.raises(InputError, match="both"):
        direct("m", output_cost_per_token=None)


def test_a_missing_key_is_an_error_at_construction_unless_the_server_is_ones_own(monkeypatch, loopback):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        OpenAIProvider("gpt-5-mini")
    assert OpenAIProvider("m", api_base=loopback.base).model == "m"


async def test_openais_own_endpoint_gets_the_new_name_of_the_limit(monkeypatch):
    sent = {}
    provider = OpenAIProvider("gpt-5-mini", api_key="sk-test-1234")

    class Completions:
        async def create(self, **options):
            sent.update(options)
            raise ValueError("not sent")

    client = SimpleNamespace(chat=SimpleNamespace(completions=Completions()))
    monkeypatch.setattr(provider, "_client", lambda: client)
    with pytest.raises(ProviderError):
        await complete(provider, params={"max_tokens": 9})
    assert sent["max_completion_tokens"] == 9
    assert "max_tokens" not in sent


def test_a_window_that_was_given_is_kept(direct):
    assert direct("m").max_prompt_tokens(10) is None
    provider = direct("m", context_window=100)
    assert provider.max_prompt_tokens(10) == 90
    assert direct("m", context_window=100, max_tokens=80).max_prompt_tokens(None) == 20
    with pytest.raises(InputError, match="give the seed to the Selector"):
        direct("m", seed=1)
    assert provider.count_tokens(ASK) >= 5


def test_it_is_named_with_a_colon(loopback):
    (provider,) = as_providers(["openai:m"], api_key="sk-a", api_base=loopback.base)
    assert isinstance(provider, OpenAIProvider)
    assert "sk-a" not in repr(provider)


async def test_what_else_the_response_carries_is_kept(loopback, direct):
    body = completion("m", Reply()) | {"citations": ["https://example.org"]}
    loopback.replies["m"] = [Reply(body=json.dumps(body).encode())]
    (candidate,) = await complete(direct("m"))
    assert candidate.response_fields["citations"] == ["https://example.org"]


HOSTS = {
    "api.openai.com/v1": "max_completion_tokens",
    "eu.api.openai.com/v1": "max_completion_tokens",
    "mine.openai.azure.com/openai/v1": "max_completion_tokens",
    "mine.cognitiveservices.azure.com/openai/v1": "max_completion_tokens",
    "mine.services.ai.azure.com/openai/v1": "max_completion_tokens",
    "mine.services.ai.azure.com/models": "max_tokens",
    "notopenai.com/v1": "max_tokens",
    "api.openai.com.example.org/v1": "max_tokens",
    "api.mistral.ai/v1": "max_tokens",
}


@pytest.mark.parametrize("host", HOSTS)
async def test_the_limit_has_the_name_that_its_host_takes(monkeypatch, host):
    asked = []

    class Proxy(BaseHTTPRequestHandler):  # stands for every host
        def do_POST(self):
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            body = json.dumps(completion("m", Reply())).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
    provider = OpenAIProvider("m", api_base=f"http://{host}", api_key="sk-secret-1234")
    try:
        await complete(provider, params={"max_tokens": 64})
    finally:
        await provider.aclose()
        server.shutdown()
        server.server_close()
    ((path, request),) = asked
    assert host in path
    assert {name: value for name, value in request.items() if "tokens" in name} == {HOSTS[host]: 64}


async def test_a_prompt_with_half_a_character_is_asked(loopback, direct):
    await direct("m").complete(Request(messages=({"role": "user", "content": "a \ud83d b"},), timeout_s=5))
    assert loopback.requests[0]["messages"][0]["content"] == "a \ufffd b"

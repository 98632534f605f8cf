"""What comes back over HTTP: redirects, lengths, encodings, and the connections that it came on."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import textwrap

import pytest
from loopback import Reply, completion, serve

from cappy_select import LiteLLMProvider, OpenAIProvider, ProviderError
from cappy_select.ask.providers.loops import PerLoop
from cappy_select.ask.providers.transport import MAX_BODY_BYTES
from cappy_select.core.types import Request

KEY = "key-of-the-first-host-0123456789"
REQUEST = Request(messages=[{"role": "user", "content": "my prompt"}], n=1, params={}, timeout_s=30)
MODELS = {
    "openai:": lambda base: OpenAIProvider("m", api_base=base, api_key=KEY, extra_headers={"x-key": KEY}),
    **{
        name: lambda base, name=name: LiteLLMProvider(name, api_base=base, api_key=KEY)
        for name in (
            *("openai/m", "anthropic/claude-haiku-4-5", "gemini/gemini-2.5-flash", "groq/m", "mistral/m", "ollama/m"),
            *("hosted_vllm/m", "deepseek/deepseek-chat", "cohere_chat/command-r", "openrouter/m", "together_ai/m"),
        )
    },
    "azure/m": lambda base: LiteLLMProvider(
        "azure/m", api_base=base, api_key=KEY, params={"api_version": "2024-10-21"}
    ),
}


async def all_of(provider, how):
    if how == "whole":
        return await provider.complete(REQUEST)
    return [piece async for piece in provider.stream(REQUEST)]


@pytest.mark.parametrize("how", ["whole", "streamed"])
@pytest.mark.parametrize("status", [301, 307])
@pytest.mark.parametrize("model", MODELS)
async def test_a_redirect_is_a_failure_that_names_the_host_which_is_sent_nothing(model, status, how):
    with AnyPath() as other, AnyPath(status, f"http://localhost:{other.port}/elsewhere?token=hidden") as first:
        with pytest.raises(ProviderError, match=f"localhost:{other.port}") as raised:
            await all_of(MODELS[model](first.base), how)
        assert raised.value.kind == "bad_request"
        assert "hidden" not in raised.value.message
        assert "elsewhere" not in raised.value.message
        assert len(first.requests) == 1
        assert other.requests == []


class AnyPath:
    """A server that answers every POST with a status and a Location, and keeps what it was sent."""

    def __init__(self, status: int = 200, location: str | None = None) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        self.requests = requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                requests.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.base = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        import threading

        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(params=["openai", "litellm"])
def model(request, direct, provider):
    return (direct if request.param == "openai" else provider)("a")


EVENT = (
    b"data: "
    + json.dumps(
        {
            "choices": [{"index": 0, "delta": {"content": "x" * 60_000}, "finish_reason": None}],
            "object": "chat.completion.chunk",
        }
    ).encode()
)


@pytest.mark.parametrize("endless", [EVENT + b"\n\n", b"data: " + b"x" * 60_000, b": comment\n" * 5_000])
async def test_a_stream_without_an_end_is_read_up_to_the_bound(model, loopback, endless):
    loopback.replies["a"] = [Reply(endless=endless, content_type="text/event-stream")]
    with pytest.raises(ProviderError, match=r"32 MiB|repeating the same chunk") as raised:
        await all_of(model, "streamed")
    if "repeating" not in raised.value.message:  # LiteLLM looks for it, and calls it a server's error
        assert raised.value.kind == "invalid_response"
    assert loopback.sent < 3 * MAX_BODY_BYTES  # the sockets' buffers come on top
    assert loopback.calls_to("a") == 1


async def test_a_length_beyond_the_bound_is_not_read_at_all(model, loopback):
    loopback.replies["a"] = [Reply(body=b"{}", headers={"Content-Length": str(MAX_BODY_BYTES + 1)})]
    with pytest.raises(ProviderError, match="32 MiB") as raised:
        await all_of(model, "whole")
    assert raised.value.kind == "invalid_response"


async def test_the_body_of_an_error_is_bounded_too(model, loopback):
    bomb = gzip.compress(b"a" * (MAX_BODY_BYTES + 1))
    loopback.replies["a"] = [Reply(status=400, body=bomb, headers={"Content-Encoding": "gzip"})]
    with pytest.raises(ProviderError) as raised:
        await all_of(model, "whole")
    assert raised.value.kind in ("invalid_response", "bad_request")
    assert len(raised.value.message) < 600


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "identity", "identity, gzip"])
async def test_gzip_is_asked_for_and_unpacked(model, loopback, encoding):
    body = json.dumps(completion("a", Reply(text="Nauta"))).encode()
    packed = gzip.compress(body) if "gzip" in encoding.lower() else body
    loopback.replies["a"] = [Reply(body=packed, headers={"Content-Encoding": encoding})]
    (candidate,) = await all_of(model, "whole")
    assert candidate.text == "Nauta"
    assert loopback.headers[0]["accept-encoding"] == "gzip"


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "deflate", "zstd", "gzip;q=1"])
async def test_another_encoding_is_refused(model, loopback, encoding):
    loopback.replies["a"] = [Reply(body=gzip.compress(b"{}"), headers={"Content-Encoding": encoding})]
    with pytest.raises(ProviderError, match="only gzip") as raised:
        await all_of(model, "whole")
    assert raised.value.kind == "invalid_response"


async def test_a_body_that_is_not_the_gzip_it_says_is_an_invalid_response(model, loopback):
    loopback.replies["a"] = [Reply(body=b"{}", headers={"Content-Encoding": "gzip"})]
    with pytest.raises(ProviderError, match="not the gzip") as raised:
        await all_of(model, "whole")
    assert raised.value.kind == "invalid_response"


async def test_log_probabilities_are_not_taken_for_a_flood_of_values(model, loopback):
    loopback.replies["a"] = [Reply(text="a b", logprobs=[-0.5] * 40_000)]
    with pytest.raises(ProviderError, match="values"):
        await all_of(model, "whole")
    asked = REQUEST.model_copy(update={"params": {"logprobs": True}})
    (candidate,) = await model.complete(asked)
    assert candidate.logprob_mean == -0.5


async def test_a_call_of_another_part_of_the_program_has_litellms_own_clients(provider, loopback):
    import litellm

    own = {"model": "openai/b", "messages": REQUEST.messages, "api_base": loopback.base, "api_key": "k" * 20}
    for name in "ab":
        loopback.replies[name] = [Reply()]
    await provider("a").complete(REQUEST)
    await litellm.acompletion(**own)
    ours, theirs = loopback.headers
    assert ours["accept-encoding"] == "gzip"
    assert theirs["accept-encoding"] != "gzip"


_RUNS = """
    import asyncio, os, resource, sys
    from cappy_select import LiteLLMProvider, OpenAIProvider
    from cappy_select.core.types import Request
    which, base = sys.argv[1:]
    request = Request(messages=[{"role": "user", "content": "q"}], n=1, params={}, timeout_s=30)
    if which == "openai":
        provider = OpenAIProvider("a", api_base=base, api_key="k" * 20)
    else:
        provider = LiteLLMProvider("openai/a", api_base=base, api_key="k" * 20)
    async def calls():
        await asyncio.gather(*(provider.complete(request) for _ in range(4)))
        return len(os.listdir("/proc/self/fd"))
    open_then = asyncio.run(calls())
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    for _ in range(40):
        asyncio.run(calls())
    left = os.listdir("/proc/self/fd")
    print(len(left) < open_then, flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("which", ["openai", "litellm"])
def test_connections_are_closed_with_their_event_loop(which):
    with serve() as server:
        done = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(_RUNS), which, server.base],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )
    assert done.stdout.strip() == "True", done.stderr[-2000:]
    assert "unclosed" not in done.stderr.lower()


def test_one_thing_for_each_loop_is_closed_when_the_loop_ends():
    made, closed = [], []

    async def close(thing):
        closed.append((thing, asyncio.get_running_loop()))

    def make():
        made.append(object())
        return made[-1]

    things = PerLoop(make, close)

    async def use():
        assert things.get() is things.get()
        return asyncio.get_running_loop()

    loops = [asyncio.run(use()) for _ in range(3)]
    assert closed == list(zip(made, loops, strict=True))


async def test_what_was_closed_is_made_anew():
    closed = []

    async def close(thing):
        closed.append(thing)

    things = PerLoop(object, close)
    first = things.get()
    await things.aclose()
    await things.aclose()
    assert closed == [first]
    assert things.get() is not first
    await things.aclose()

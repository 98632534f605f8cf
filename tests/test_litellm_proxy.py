"""The example folder as a real LiteLLM proxy: another process, another virtual environment, OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
import tomllib
import venv
from pathlib import Path

import httpx
import openai
import pytest
from filelock import FileLock
from loopback import Reply, serve
from test_litellm_cappy import ASK, RIGHT, TOOL, WRONG, calling

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "litellm_proxy"
MASTER, UPSTREAM = "sk-master-1234", "sk-upstream-5678"


@pytest.fixture(scope="module")
def environment():
    """The proxy's own, under .venv: its hundred dependencies are none of ours. Made once, until ours change.

    LiteLLM's version is pip's choice: the newest whose `proxy` extra can be had.
    """
    folder = ROOT / ".venv" / "proxy"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    made, wanted = folder / "made", json.dumps(project["dependencies"])
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):  # several workers may want it
        if not made.is_file() or made.read_text() != wanted:
            venv.create(folder, clear=True, with_pip=True)
            install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            done = subprocess.run([*install, "--editable", ROOT, "litellm[proxy]"], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"pip can't install litellm[proxy]: {done.stderr[-500:]}")
            made.write_text(wanted)
    return folder / "bin"


@pytest.fixture(scope="module")
def running(environment, tmp_path_factory):
    """The proxy of the example, its models on the loopback server: (address, server, log)."""
    folder = tmp_path_factory.mktemp("proxy")
    with socket.socket() as one, serve() as server:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        one.close()
        settings = {
            "LITELLM_MASTER_KEY": MASTER,
            "OPENAI_API_KEY": UPSTREAM,
            "OPENAI_API_BASE": server.base,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        command = [
            environment / "litellm",
            "--config",
            EXAMPLE / "config.yaml",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        with (folder / "log").open("w") as log:
            proxy = subprocess.Popen(
                command, cwd=folder, env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/health/readiness", proxy, folder / "log")
            yield address, server, folder / "log"
        finally:
            proxy.terminate()
            proxy.wait(timeout=30)


def wait_for(url, process, log, seconds=180):
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.25)
    pytest.fail(f"the proxy did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture
def upstream(running):
    """The loopback server; the first model of the panel answers worse than the second."""
    _, server, _ = running
    server.requests.clear()
    server.keys.clear()
    server.replies.clear()
    server.replies["gpt-5-mini"] = [Reply(text=WRONG)]
    server.replies["gpt-5-nano"] = [Reply(text=RIGHT)]
    yield server
    assert server.violations == []
    assert set(server.keys) <= {UPSTREAM}  # never the clients' key


@pytest.fixture
def client(running, upstream):
    with openai.OpenAI(base_url=f"{running[0]}/v1", api_key=MASTER, max_retries=0, timeout=60) as client:
        yield client


def test_a_client_gets_the_winner_the_bill_and_what_was_weighed(client, upstream):
    raw = client.chat.completions.with_raw_response.create(model="panel", messages=ASK)
    answer = raw.parse()
    assert answer.choices[0].message.content == RIGHT
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (40, 16)
    assert float(raw.headers["x-litellm-response-cost"]) == pytest.approx(answer.usage.cost)
    assert answer.usage.cost > 0
    assert answer.cappy["model"] == "openai/gpt-5-nano"
    assert len(answer.cappy["candidates"]) == 4
    assert len(upstream.requests) == 4


def test_a_client_gets_the_winner_in_pieces(client):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="panel", messages=ASK, **options))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == RIGHT
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["stop"]
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    assert (usage.prompt_tokens, usage.completion_tokens) == (40, 16)
    (fields,) = [delta.provider_specific_fields for delta in deltas if hasattr(delta, "provider_specific_fields")]
    assert fields["cappy"]["model"] == "openai/gpt-5-nano"


def test_what_a_reasoning_model_is_told_reaches_it(client, upstream):
    answer = client.chat.completions.create(model="panel", messages=ASK, reasoning_effort="low")
    assert answer.choices[0].message.content == RIGHT
    assert {request["reasoning_effort"] for request in upstream.requests} == {"low"}


@pytest.mark.parametrize("extra", [{"model": "gpt-5-pro"}, {"n": 3}, {"messages": []}])
def test_a_client_can_not_say_who_is_asked_or_how_often(client, upstream, extra):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="panel", messages=ASK, extra_body={"extra_body": extra})
    assert not upstream.requests


@pytest.mark.parametrize(
    "extra",
    [
        {"fallbacks": [{"model": "openai/gpt-4o-mini", "api_base": "THIEF"}], "logit_bias": {"1": 1}},
        {"mock_response": "made up"},
        {"extra_body": {"litellm_params": {"api_base": "THIEF", "api_key": "os.environ/OPENAI_API_KEY"}}},
        {"chat_template_kwargs": {"api_base": "THIEF"}},
        {"tools": [{"type": "mcp", "server_label": "x", "server_url": "litellm_proxy/mcp/github"}]},
    ],
)
def test_a_client_takes_neither_key_nor_answer_nor_tools_of_the_server(client, upstream, extra):
    with serve() as thief:
        body = json.loads(json.dumps(extra).replace("THIEF", thief.base))
        with pytest.raises(openai.BadRequestError, match="can't be a call parameter"):
            client.chat.completions.create(model="panel", messages=ASK, extra_body={"extra_body": body})
        assert thief.requests == upstream.requests == []


@pytest.mark.parametrize("name", ["fallbacks", "mock_response", "input_cost_per_token", "api_base", "base_url"])
def test_nor_by_what_stands_at_the_top_of_the_request(client, upstream, name):
    with serve() as thief:
        values = {"fallbacks": [{"model": "openai/x", "api_base": thief.base}], "input_cost_per_token": 0}
        try:
            answer = client.chat.completions.create(
                model="panel", messages=ASK, extra_body={name: values.get(name, thief.base)}
            )
        except openai.APIStatusError:
            pass  # the proxy's own judgement, by its version
        else:
            assert answer.choices[0].message.content == RIGHT
            assert answer.usage.cost > 1e-6
        assert thief.requests == []


def test_the_health_check_lets_a_model_think(running, upstream):
    def answer(request):
        most = request.get("max_completion_tokens") or request["max_tokens"]
        return Reply(text="OK", finish_reason="stop" if most > 100 else "length")

    upstream.answer = answer
    try:
        said = httpx.get(f"{running[0]}/health", headers={"Authorization": f"Bearer {MASTER}"}, timeout=60).json()
    finally:
        upstream.answer = None
    assert (said["healthy_count"], said["unhealthy_count"]) == (2, 0), said


def test_another_preset_votes(client, upstream):
    upstream.replies["gpt-5-nano"] = [Reply(text=f"{number} rivers") for number in (3, 2, 2)]
    assert client.chat.completions.create(model="numbers", messages=ASK).choices[0].message.content == "2 rivers"


def test_tool_calls_go_through(client, upstream):
    upstream.replies["gpt-5-mini"] = [calling("Rhine", tool="search")]  # a tool that was not offered
    upstream.replies["gpt-5-nano"] = [calling("Marañón", "Ucayali")]
    answer = client.chat.completions.create(model="panel", messages=ASK, tools=[TOOL])
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"river": "Marañón"}, {"river": "Ucayali"}]
    assert all(request["tools"] == [TOOL] for request in upstream.requests)
    told = [{"role": "tool", "tool_call_id": call.id, "content": "near Nauta"} for call in calls]
    upstream.replies["gpt-5-nano"] = [Reply(text=RIGHT)]
    history = [*ASK, answer.choices[0].message, *told]
    answer = client.chat.completions.create(model="panel", messages=history, tools=[TOOL])
    assert answer.choices[0].message.content == RIGHT


def test_tool_calls_go_through_in_pieces(client, upstream):
    upstream.replies["gpt-5-mini"] = [calling("Rhine", tool="search")]
    upstream.replies["gpt-5-nano"] = [calling("Marañón", "Ucayali")]
    with client.chat.completions.stream(model="panel", messages=ASK, tools=[TOOL]) as stream:  # puts them together
        answer = stream.get_final_completion()
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = [(call.function.name, call.function.arguments) for call in answer.choices[0].message.tool_calls]
    assert [(name, json.loads(text)["river"]) for name, text in calls] == [("find", "Marañón"), ("find", "Ucayali")]


def test_a_response_format_is_held(client, upstream):
    upstream.replies["gpt-5-nano"] = [Reply(text='{"river": "Ucayali"}')]
    schema = {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]}
    asked = {"type": "json_schema", "json_schema": {"name": "river", "schema": schema}}
    answer = client.chat.completions.create(model="panel", messages=ASK, response_format=asked)
    assert json.loads(answer.choices[0].message.content) == {"river": "Ucayali"}


async def test_many_clients_at_once_each_get_their_winner(running, upstream):
    names = [f"river {number}" for number in range(8)]

    def answer(request):
        name = request["messages"][-1]["content"].removeprefix("Say exactly this: ").removesuffix(".")
        return Reply(text=f"The {name}." if request["model"] == "gpt-5-nano" else "I can't.", delay_s=0.2)

    upstream.answer = answer
    try:
        async with openai.AsyncOpenAI(base_url=f"{running[0]}/v1", api_key=MASTER, max_retries=0) as client:

            async def ask(name, stream):
                messages = [{"role": "user", "content": f"Say exactly this: {name}."}]
                answer = await client.chat.completions.create(model="panel", messages=messages, stream=stream)
                if not stream:
                    return answer.choices[0].message.content
                return "".join([c.delta.content or "" async for chunk in answer for c in chunk.choices])

            said = await asyncio.gather(*(ask(name, number % 2 == 0) for number, name in enumerate(names)))
    finally:
        upstream.answer = None
    assert said == [f"The {name}." for name in names]


def test_a_model_that_is_none_is_the_clients_fault(client, upstream):
    with pytest.raises((openai.NotFoundError, openai.BadRequestError), match="river-panel"):
        client.chat.completions.create(model="river-panel", messages=ASK)
    assert not upstream.requests


def test_a_wrong_key_asks_nobody(running, upstream):
    client = openai.OpenAI(base_url=f"{running[0]}/v1", api_key="sk-wrong", max_retries=0)
    with client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="panel", messages=ASK)
    assert caught.value.status_code in (400, 401, 403)  # 400 without a database of keys
    assert not upstream.requests


@pytest.mark.parametrize("stream", [False, True])
def test_when_all_models_are_down_there_is_an_error_and_no_answer(client, upstream, running, stream):
    for name in ("gpt-5-mini", "gpt-5-nano"):
        upstream.replies[name] = [Reply(status=503, error=f"down, says {UPSTREAM}")]
    with pytest.raises(openai.InternalServerError, match="0 usable answers") as caught:
        client.chat.completions.create(model="panel", messages=ASK, stream=stream)
    assert caught.value.status_code == 503
    assert "openai/gpt-5-mini: server: down" in str(caught.value)
    assert "openai/gpt-5-nano: server: down" in str(caught.value)
    assert UPSTREAM not in str(caught.value)
    assert UPSTREAM not in running[2].read_text()


CACHED = """
import litellm, litellm_cappy, sys
litellm_cappy.register(sys.argv[1])
litellm.cache = litellm.Cache()
for question in ("Name a river.", "Name a river.", "Name a lake."):
    litellm.completion(model="cappy/p", messages=[{"role": "user", "content": question}])
"""


def test_a_cache_keeps_answers_but_never_candidates(environment, tmp_path):
    """In a process of its own, for the cache imports the proxy. Two questions: the third completion is a cache hit."""
    with serve() as server:
        server.replies["m"] = [Reply(text="The Ucayali."), Reply(text="The Nile.")]
        presets = tmp_path / "presets.yaml"
        model = f"{{model: openai/m, api_base: {server.base!r}, api_key_env: PANEL_KEY}}"
        samplings = "{samplings: [{n: 1, temperature: 0.5}, {n: 1, temperature: 0.5}]}"  # two equal calls
        presets.write_text(f"presets: {{p: {{models: [{model}], plan: {samplings}, max_concurrency: 1}}}}")
        settings = {"PANEL_KEY": UPSTREAM, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        command = [environment / "python", "-c", CACHED, presets]
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        assert len(server.requests) == 4
        assert server.violations == []

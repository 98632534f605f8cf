"""What can be said of a call, and who may say it."""

from __future__ import annotations

import asyncio
import inspect
import json
from contextlib import suppress

import litellm
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from litellm.types.utils import all_litellm_params
from loopback import Reply, serve
from openai.resources.chat.completions import AsyncCompletions

from cappy_select import (
    InputError,
    LiteLLMProvider,
    OpenAIProvider,
    ProviderError,
    Request,
    Selector,
    UnknownArgument,
)
from cappy_select.ask.parameters import FIXED, KNOWN, OPENAI, CallParameters, callers
from cappy_select.ask.providers import litellm_own
from cappy_select.ask.providers.received import Received
from cappy_select.ask.sampling import PARAMETERS

# Options of OpenAI's client and not of the call.
CLIENTS = {"self", "extra_headers", "extra_query", "extra_body"}


def test_the_parameters_by_name_are_those_of_openais_client_and_of_a_sampling():
    theirs = set(inspect.signature(AsyncCompletions.create).parameters) - CLIENTS - FIXED
    assert theirs == OPENAI
    assert set(CallParameters.__annotations__) == OPENAI | PARAMETERS | {"extra_body"}


def test_what_litellm_acts_upon_is_read_from_the_installed_version():
    own = litellm_own.names().own
    assert {*all_litellm_params, "api_base", "fallbacks", "drop_params", "deployment_id"} - KNOWN <= own
    assert "temperature" in litellm_own.names().callers
    assert "metadata" not in litellm_own.names().callers | own  # OpenAI's in the body, LiteLLM's as an argument


WRONG = [
    ({"sample": 2}, "'samples'"),
    ({"deadline": 0.1}, "'deadline_s'"),
    ({"max_costs": 1e-9}, "'max_cost'"),
    ({"timeout": 3}, "'deadline_s'"),
    ({"model": "x"}, "'models'"),
    ({"temprature": 1}, "'temperature'"),
    ({"parameters": {}}, "'params'"),
    ({"chat_template_kwargs": {}}, r"params=\{'chat_template_kwargs': ...\}"),
    ({"mock_response": "x"}, "no argument 'mock_response'$"),
]


@pytest.mark.parametrize(("argument", "meant"), WRONG)
def test_an_argument_that_there_is_not_is_refused_and_the_one_meant_is_named(provider, tiny, argument, meant):
    with pytest.raises(TypeError, match=f"Selector has no argument '{next(iter(argument))}'") as caught:
        Selector([provider("m")], scorer=tiny, **argument)
    caught.match(meant)
    assert isinstance(caught.value, InputError)


async def test_a_call_takes_no_argument_that_it_has_not(provider, tiny, loopback):
    selector = Selector([provider("m")], samples=1, scorer=tiny)
    for call in (
        lambda **given: selector.select("q", **given),
        lambda **given: selector.batch(["q"], **given),
        lambda **given: next(selector.stream("q", **given)),
    ):
        with pytest.raises(UnknownArgument, match="did you mean 'top_p'"):
            call(topp=0.5)
    for acall in (selector.aselect, selector.abatch):
        with pytest.raises(UnknownArgument, match="'deadline_s' is set at the making"):
            await acall(["q"], deadline=1)
    with pytest.raises(UnknownArgument, match="max_tokens"):
        await anext(selector.astream("q", max_token=1))
    assert loopback.requests == []


@pytest.mark.parametrize("make", [LiteLLMProvider, OpenAIProvider])
def test_a_provider_takes_no_argument_that_it_has_not(make):
    with pytest.raises(TypeError, match="did you mean 'api_base'"):
        make("openai/m", api_key="k", api_bse="http://127.0.0.1")
    with pytest.raises(TypeError, match=r"params=\{'drop_params'"):
        make("openai/m", api_key="k", drop_params=True)
    with pytest.raises(InputError, match="temperature: given twice"):
        make("openai/m", api_key="k", temperature=1, params={"temperature": 0})
    with pytest.raises(InputError, match="params must be a mapping"):
        make("openai/m", api_key="k", params=["temperature"])


@pytest.mark.parametrize("client", ["provider", "direct"])
def test_params_and_keywords_are_one_and_what_openai_has_not_goes_into_the_body(request, client, tiny, loopback):
    loopback.takes = frozenset({"chat_template_kwargs", "think", "deep", "echo", "seen", "min_p"})
    model = request.getfixturevalue(client)("m", params={"min_p": 0.1, "extra_body": {"seen": "owner"}})
    selector = Selector([model], samples=1, scorer=tiny, params={"top_p": 0.5, "echo": True}, max_tokens=9)
    more = {"chat_template_kwargs": {"enable_thinking": False}, "extra_body": {"think": 1, "extra_body": {"deep": 2}}}
    selector.select("q", temperature=0.2, params=more)
    selector.batch(["q"], params=more, temperature=0.2)
    list(selector.stream("q", more, temperature=0.2))
    body = {"chat_template_kwargs": {"enable_thinking": False}, "think": 1, "deep": 2, "echo": True, "seen": "owner"}
    for sent in loopback.requests:
        limit = sent.get("max_tokens") or sent["max_completion_tokens"]
        assert (sent["temperature"], sent["top_p"], limit, sent["min_p"]) == (0.2, 0.5, 9, 0.1)
        assert {name: sent[name] for name in body} == body
    assert len(loopback.requests) == 3


def test_openais_metadata_is_the_models_and_not_litellms(provider, tiny, loopback):
    Selector([provider("m")], samples=1, scorer=tiny).select("q", metadata={"case": "7"}, store=True)
    assert loopback.requests[0]["metadata"] == {"case": "7"}


NEVER = [
    {"fallbacks": [{"model": "openai/x", "api_base": "http://thief.invalid"}]},
    {"FALLBACKS": ["openai/x"]},
    {"contextWindowFallbacks": []},
    {"mock_response": "made up"},
    {"mock_tool_calls": []},
    {"input_cost_per_token": 0},
    {"api_version": "1"},
    {"Base-URL": "http://thief.invalid"},
    {"custom_llm_provider": "openai"},
    {"success_callback": ["x"]},
    {"extra_headers": {"x": "y"}},
    {"litellm_params": {"api_base": "http://thief.invalid"}},
    {"proxy_server_request": {}},
    {"aws_session_token": "x"},
    {"vertex_credentials": "/etc/passwd"},
    {"azure_ad_token": "x"},
    {"cache": {"no-cache": True}},
    {"num_retries": 3},
    {"models": ["openai/o1-pro"]},
    {"Model": "openai/o1-pro"},
    {"maxTokens": 10**6},
    {"_skip_mcp_handler": False},
    {"user": "os.environ/OPENAI_API_KEY"},
    {"chat_template_kwargs": {"deep": [{"api_base": "http://thief.invalid"}]}},
    {"chat_template_kwargs": {"deep": ["os.environ/OPENAI_API_KEY"]}},
    {"verbose": True},  # of LiteLLM's list alone
    {"model_list": []},
]


@pytest.mark.parametrize("params", NEVER, ids=lambda params: next(iter(params)))
@pytest.mark.parametrize("wrapped", [0, 1, 3])
async def test_what_is_not_the_callers_is_refused_before_anybody_is_asked(provider, tiny, loopback, params, wrapped):
    selector, asked = Selector([provider("m")], samples=1, scorer=tiny), params
    for _ in range(wrapped):
        asked = {"extra_body": asked}
    with pytest.raises(InputError, match=next(iter(params))):
        await selector.aselect("q", asked)
    assert loopback.requests == []


def test_the_owner_says_such_things_to_the_provider_and_not_to_the_selector(provider, tiny, loopback):
    with pytest.raises(InputError, match=r"LiteLLMProvider\(MODEL, params=\{'mock_response': ...\}\)"):
        Selector([provider("m")], scorer=tiny, params={"mock_response": "said"})
    with pytest.raises(InputError, match="drop_params can't be a call parameter"):
        Selector([provider("m")], scorer=tiny, params={"drop_params": True})
    owned = provider("m", params={"mock_response": "said by the owner"})
    assert Selector([owned], samples=1, scorer=tiny).select("q").text == "said by the owner"
    assert loopback.requests == []


def test_an_owner_can_allow_by_name_and_by_that_only(provider, tiny, loopback):
    loopback.takes = frozenset({"guided_json"})
    selector = Selector([provider("m")], samples=1, scorer=tiny, allowed_params=["guided_json"])
    selector.select(
        "q", params={"guided_json": {"properties": {"api_key": {}}}, "temperature": 0.5, "min_tokens": None}
    )
    assert loopback.requests[0]["guided_json"] == {"properties": {"api_key": {}}}
    with pytest.raises(InputError, match="the panel's owner allows guided_json"):
        selector.select("q", params={"guided_choice": ["a"]})
    with pytest.raises(InputError, match="fallbacks can never come from a caller"):
        Selector([provider("m")], scorer=tiny, allowed_params=["fallbacks"])
    with pytest.raises(InputError, match="must be a list of names"):
        Selector([provider("m")], scorer=tiny, allowed_params="guided_json")


async def test_a_provider_asked_without_a_selector_guards_itself_too(provider, direct, loopback):
    messages = ({"role": "user", "content": "q"},)
    for params in ({"fallbacks": []}, {"extra_body": {"mock_response": "x"}}, {"extra_body": 3}):
        with pytest.raises(ProviderError) as caught:
            await provider("m").complete(Request(messages=messages, params=params, allowed=frozenset(params)))
        assert caught.value.kind == "bad_request"
    with pytest.raises(ProviderError, match="model is no parameter"):
        await direct("m").complete(Request(messages=messages, params={"extra_body": {"model": "x"}}))
    loopback.takes = frozenset({"extra_headers"})
    await direct("m").complete(Request(messages=messages, params={"extra_headers": {"Authorization": "Bearer mine"}}))
    assert loopback.keys == ["sk-secret-1234"]


def test_tools_of_the_owners_gateway_are_not_the_callers_to_use(provider, tiny, loopback):
    gateway = {
        "type": "mcp",
        "server_label": "x",
        "server_url": "litellm_proxy/mcp/github",
        "require_approval": "never",
    }
    with pytest.raises(InputError, match="an MCP server or store of LiteLLM's own"):
        Selector([provider("m")], samples=1, scorer=tiny).select("q", tools=[gateway])
    assert loopback.requests == []
    vendors = gateway | {"server_url": "https://mcp.example.com/sse"}
    assert litellm_own.acted_upon({"tools": [vendors, {"type": "function", "function": {"name": "f"}}]}) == set()


def test_what_lies_too_deep_is_one_error():
    deep: object = "x"
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(InputError, match="deep"):
        callers({"chat_template_kwargs": deep}, None)
    circle: dict[str, object] = {}
    circle["extra_body"] = circle
    with pytest.raises(InputError, match="lies in itself"):
        callers(circle, None)
    with pytest.raises(InputError, match="has a name, got 3"):
        callers({"extra_body": {3: 4}}, None)


OWN = [name for name in sorted(litellm_own.names().own) if not name.startswith("_")]
names = some.sampled_from([*OWN, "mock_tool_calls", "context_window_fallbacks", "success_callback", "azure_ad_token"])
spelled = some.one_of(names, names.map(str.upper), names.map(lambda name: name.replace("_", "-")))
harmless = some.sampled_from(["temperature", "top_p", "user", "min_p", "chat_template_kwargs", "seen"])


def values_with(thief):
    leaves = some.sampled_from([thief, "gpt-5", 0, 1.0, True, None])
    return some.recursive(
        leaves,
        lambda inner: some.lists(inner, max_size=2) | some.dictionaries(spelled | harmless, inner, max_size=2),
        max_leaves=4,
    )


# What the provider says itself, and `metadata`, which is OpenAI's.
OURS = {"model", "messages", "api_key", "api_base", "timeout", "num_retries", "max_retries", "_skip_mcp_handler"} | {
    "logger_fn"  # a Received of the provider's
}


def test_nothing_that_litellm_acts_upon_reaches_it_from_a_caller(tiny, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-server")
    seen, real, own = [], litellm.acompletion, litellm_own.names().own

    async def recorded(**arguments):
        seen.append(arguments)
        return await real(**arguments)

    monkeypatch.setattr(litellm, "acompletion", recorded)
    with serve() as model, serve() as thief:
        model.replies["m"] = [Reply(text="from the model")]
        model.takes = frozenset({"min_p", "chat_template_kwargs", "seen"})
        provider = LiteLLMProvider("openai/m", api_base=model.base)
        selector = Selector([provider], samples=1, scorer=tiny, max_retries=0)

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(some.data())
        def try_it(data):
            params = data.draw(some.dictionaries(spelled | harmless, values_with(thief.base), max_size=3))
            for _ in range(data.draw(some.integers(0, 2))):
                params = {"extra_body": params} | data.draw(
                    some.dictionaries(harmless, values_with(thief.base), max_size=1)
                )
            seen.clear()
            with suppress(InputError, ExceptionGroup):  # refused here, or by the model
                assert selector.select("q", params).text == "from the model"
            for arguments in seen:
                reached = {*arguments, *arguments.get("extra_body", ())}
                assert {name.casefold().replace("-", "_") for name in reached} & own <= OURS
                assert isinstance(arguments["logger_fn"], Received)

        try_it()
        assert thief.requests == []
        assert set(model.keys) == {"sk-of-the-server"}


def test_a_client_library_is_not_needed_to_know_what_it_acts_upon():
    for name in ("fallbacks", "mock_response", "api_base", "litellm_params", "output_cost_per_token", "headers"):
        with pytest.raises(InputError, match=name):
            callers({"extra_body": {name: 1}}, None)
    fields = {
        "guided_json": {},
        "chat_template_kwargs": {},
        "cache_salt": "x",
        "safety_settings": [],
        "stop_token_ids": [],
    }
    assert callers(fields, None) == fields


def test_the_body_is_json_and_ours_alone(provider, tiny, loopback):
    """Calls share no mutable part of a caller's parameters that LiteLLM might change."""
    loopback.takes = frozenset({"chat_template_kwargs"})
    params = {"extra_body": {"chat_template_kwargs": {"a": [1]}}}
    before = json.dumps(params)
    asyncio.run(Selector([provider("m")], samples=3, scorer=tiny).aselect("q", params))
    assert json.dumps(params) == before


@pytest.mark.parametrize(
    "name", ["deadline_s", "deadline", "samples", "sample", "max_costs", "gates", "min_usable", "Strategy"]
)
def test_a_limit_among_the_parameters_is_refused_by_the_name_that_was_meant(loopback, direct, default, name):
    selector = Selector([direct("m")], samples=1, scorer=default)
    asked = len(loopback.requests)
    for call in (
        lambda: selector.select("q", params={name: 1}),
        lambda: selector.select("q", params={"extra_body": {name: 1}}),
        lambda: Selector([direct("m")], samples=1, scorer=default, params={name: 1}),
    ):
        with pytest.raises(UnknownArgument, match="is set at the making"):
            call()
    assert len(loopback.requests) == asked


def test_a_chat_model_says_where_its_limits_are_set(loopback, direct, default):
    from langchain_cappy import ChatCappy

    chat = ChatCappy(models=[direct("m")], samples=1, scorer=default)
    for call in (lambda: chat.invoke("q", deadline_s=0.1), lambda: chat.bind(samples=2).invoke("q")):
        with pytest.raises(UnknownArgument, match="is set at the making"):
            call()
    assert not loopback.requests


def test_what_an_owner_allows_by_name_passes_though_it_looks_like_a_limit(loopback, direct, default):
    loopback.takes = frozenset({"sample"})
    selector = Selector([direct("m")], samples=1, scorer=default, allowed_params=["sample"])
    selector.select("q", params={"sample": True})
    assert loopback.requests[-1]["sample"] is True

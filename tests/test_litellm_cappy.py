from __future__ import annotations

import json
import time

import litellm
import openai
import pytest
from litellm_cappy import register
from loopback import Reply, serve
from pydantic import BaseModel

from cappy_select import (
    Candidate,
    Delta,
    InputError,
    NoCandidates,
    Selection,
    Selector,
    StrategyError,
    Usage,
    Vote,
)
from cappy_select.core import Instruction

ASK = [{"role": "user", "content": "The Marañón and the Ucayali meet near Nauta. Which rivers meet near Nauta?"}]
WRONG, RIGHT = "Fine weather on Monday.", "The Marañón and the Ucayali."
USAGE = {"include_usage": True}
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]},
    },
}


def calling(*names, tool="find"):
    calls = [
        {"id": f"call_{name}", "type": "function", "function": {"name": tool, "arguments": json.dumps({"river": name})}}
        for name in names
    ]
    return Reply(message={"role": "assistant", "content": None, "tool_calls": calls}, finish_reason="tool_calls")


@pytest.fixture
def registered():
    """`register`, undone after the test."""
    before = litellm.custom_provider_map
    yield register
    litellm.custom_provider_map = before


@pytest.fixture
def panel(registered, loopback, provider, default):
    """`cappy/two`: the first of two models gives the worse answer. `cappy/one`: the second alone."""
    loopback.replies["a"] = [Reply(text=WRONG)]
    loopback.replies["b"] = [Reply(text=RIGHT)]
    two = Selector([provider("a"), provider("b")], samples=1, scorer=default)
    one = Selector([provider("b")], samples=1, scorer=default)
    return registered({"two": two, "one": one})


def stream(model="cappy/two", **options):
    return list(litellm.completion(model=model, messages=ASK, stream=True, **options))


async def astream(model="cappy/two", **options):
    return [piece async for piece in await litellm.acompletion(model=model, messages=ASK, stream=True, **options)]


async def streamed(way, *given, **options):
    return stream(*given, **options) if way == "sync" else await astream(*given, **options)


def text_of(chunks):
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def reasons_of(chunks):
    return [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]


def calls_of(chunks):
    """The tool calls of a stream, put together as OpenAI's clients do."""
    calls = {}
    for chunk in chunks:
        for piece in (chunk.choices[0].delta.tool_calls if chunk.choices else None) or ():
            call = calls.setdefault(piece.index, {"id": None, "name": None, "arguments": ""})
            call["id"] = piece.id or call["id"]
            call["name"] = piece.function.name or call["name"]
            call["arguments"] += piece.function.arguments or ""
    return [(call["id"], call["name"], json.loads(call["arguments"])) for call in calls.values()]


def test_the_best_answer_comes_with_the_bill_of_all_and_what_was_weighed(panel, loopback):
    response = litellm.completion(model="cappy/two", messages=ASK, temperature=0.4)
    assert response.choices[0].message.content == RIGHT
    assert response.choices[0].finish_reason == "stop"
    assert response.model == "cappy/two"
    assert (response.usage.prompt_tokens, response.usage.total_tokens) == (20, 28)
    assert response._hidden_params["response_cost"] == pytest.approx(2 * 18e-6)
    assert response.cappy["score"] > 0.5
    assert [candidate["model"] for candidate in response.cappy["candidates"]] == ["openai/b", "openai/a"]
    assert response._hidden_params["cappy"] == response.cappy == json.loads(response.model_dump_json())["cappy"]
    assert {request["temperature"] for request in loopback.requests} == {0.4}


async def test_acompletion_too(panel):
    response = await litellm.acompletion(model="cappy/two", messages=ASK)
    assert response.choices[0].message.content == RIGHT


def test_all_of_the_winner_is_kept(panel, loopback):
    message = {"role": "assistant", "content": RIGHT, "reasoning_content": "Nauta, then."}
    loopback.replies["b"] = [Reply(message=message, logprobs=[-0.5])]
    response = litellm.completion(model="cappy/two", messages=ASK, logprobs=True)
    assert response.choices[0].message.reasoning_content == "Nauta, then."
    assert response.choices[0].logprobs.content[0].logprob == -0.5


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_the_winner_is_streamed_and_the_bill_comes_last(panel, way):
    chunks = await streamed(way, stream_options=USAGE)
    assert text_of(chunks) == RIGHT
    assert len(chunks) > 5
    assert reasons_of(chunks) == ["stop"]
    (usage,) = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    assert (usage.prompt_tokens, usage.completion_tokens) == (20, 8)
    assert usage.cost == pytest.approx(2 * 18e-6)
    (summary,) = [chunk.cappy for chunk in chunks if hasattr(chunk, "cappy")]
    assert summary["model"] == "openai/b"


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_without_stream_options_no_usage_is_shown(panel, way):
    chunks = await streamed(way)
    assert text_of(chunks) == RIGHT
    assert not any(getattr(chunk, "usage", None) for chunk in chunks)


def test_one_answer_is_passed_on_while_it_is_written(panel, loopback):
    loopback.replies["b"] = [Reply(text=RIGHT, pieces_delay_s=0.1)]
    seen = [time.perf_counter() for _ in litellm.completion(model="cappy/one", messages=ASK, stream=True)]
    assert seen[-1] - seen[0] > 0.2  # the first were there before the last was written
    assert loopback.requests[0]["stream"] is True


def test_an_answer_that_repeats_itself_can_be_streamed(panel, loopback):
    loopback.replies["b"] = [Reply(text="so on and " * 2 + "bla " * 150)]  # LiteLLM gives up after 100 equal chunks
    loopback.replies["a"] = [Reply(text="")]
    assert text_of(stream()) == "so on and " * 2 + "bla " * 150


async def test_a_stream_that_is_left_ends_its_calls(panel, loopback, no_leaks):
    loopback.replies["b"] = [Reply(text="word " * 100, pieces_delay_s=0.05)]
    pieces = await litellm.acompletion(model="cappy/one", messages=ASK, stream=True)
    assert (await anext(pieces)).choices[0].delta.content.strip() == "word"
    await pieces.aclose()


@pytest.mark.parametrize("model", ["cappy/two", "cappy/one"])
@pytest.mark.parametrize("way", ["sync", "async"])
async def test_tool_calls_go_through_in_both_directions(panel, loopback, model, way):
    loopback.replies["a"] = [calling("Rhine", tool="search")]  # a tool that was not offered
    loopback.replies["b"] = [calling("Marañón", "Ucayali")]
    wanted = [(f"call_{name}", "find", {"river": name}) for name in ("Marañón", "Ucayali")]
    message = litellm.completion(model=model, messages=ASK, tools=[TOOL]).choices[0].message
    assert [(c.id, c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls] == wanted
    chunks = await streamed(way, model, tools=[TOOL], stream_options=USAGE)
    assert calls_of(chunks) == wanted
    assert reasons_of(chunks) == ["tool_calls"]
    assert all(request["tools"] == [TOOL] for request in loopback.requests)


def test_the_answer_to_a_tool_call_goes_back_without_our_summary(panel, loopback):
    loopback.replies["b"] = [calling("Ucayali")]
    called = litellm.stream_chunk_builder(stream(tools=[TOOL])).choices[0].message.model_dump()
    assert "cappy" in called["provider_specific_fields"]
    loopback.replies["b"] = [Reply(text=RIGHT)]
    told = {"role": "tool", "tool_call_id": "call_Ucayali", "content": "900 km"}
    response = litellm.completion(model="cappy/two", messages=[*ASK, called, told], tools=[TOOL])
    assert response.choices[0].message.content == RIGHT
    assert "cappy" not in json.dumps(loopback.requests[-1])


def test_a_response_format_is_asked_for_and_held(panel, loopback):
    class River(BaseModel):
        river: str

    loopback.replies["b"] = [Reply(text='{"river": "Ucayali"}')]
    response = litellm.completion(model="cappy/two", messages=ASK, response_format=River)
    assert River.model_validate_json(response.choices[0].message.content).river == "Ucayali"
    assert "not JSON" in response.cappy["candidates"][1]["rejected"]
    assert {request["response_format"]["type"] for request in loopback.requests} == {"json_schema"}


async def test_it_serves_behind_a_router(panel):
    router = litellm.Router([{"model_name": "best", "litellm_params": {"model": "cappy/two"}}], num_retries=0)
    response = await router.acompletion(model="best", messages=ASK, n=1, stream=False, timeout=20)
    assert response.choices[0].message.content == RIGHT
    chunks = [chunk async for chunk in await router.acompletion(model="best", messages=ASK, stream=True)]
    assert text_of(chunks) == RIGHT


async def test_a_preset_that_abstains_hands_the_question_on(registered, loopback, provider, default):
    loopback.replies["b"] = [Reply(text=RIGHT)]
    picky = Selector([provider("a")], samples=1, scorer=default, abstain_below=50.0)
    registered({"picky": picky, "strong": Selector([provider("b")], samples=1, scorer=default)})
    models = [{"model_name": name, "litellm_params": {"model": f"cappy/{name}"}} for name in ("picky", "strong")]
    router = litellm.Router(models, fallbacks=[{"picky": ["strong"]}], num_retries=0)
    assert (await router.acompletion(model="picky", messages=ASK)).choices[0].message.content == RIGHT
    chunks = [chunk async for chunk in await router.acompletion(model="picky", messages=ASK, stream=True)]
    assert text_of(chunks) == RIGHT
    assert loopback.calls_to("a") == 2


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (401, "wrong key", litellm.AuthenticationError),
        (429, "slow down", litellm.RateLimitError),
        (400, "what?", litellm.BadRequestError),
        (400, "maximum context length is 10 tokens", litellm.ContextWindowExceededError),
        (503, "down", litellm.ServiceUnavailableError),
    ],
)
async def test_failures_alike_are_the_exception_of_that_failure(
    registered, loopback, provider, default, status, said, kind
):
    registered({"p": Selector([provider("a"), provider("b")], samples=1, scorer=default, max_retries=0)})
    for name in "ab":
        loopback.replies[name] = [Reply(status=status, error=f"{said}, sk-secret-1234")]
    for call in (
        lambda: litellm.completion(model="cappy/p", messages=ASK),
        lambda: litellm.completion(model="cappy/p", messages=ASK, stream=True),  # before the first chunk
    ):
        with pytest.raises(kind, match=r"0 usable answers(.|\n)*openai/b") as caught:
            call()
        assert said in str(caught.value)
        assert "sk-secret" not in str(caught.value)
        assert isinstance(caught.value.__cause__, NoCandidates)
    with pytest.raises(openai.APIError, match="0 usable answers") as caught:
        await astream("cappy/p")
    # What a Router may try elsewhere, LiteLLM wraps.
    assert isinstance(getattr(caught.value, "original_exception", None) or caught.value, kind)


def test_a_deadline_that_passes_is_a_timeout(registered, loopback, provider, default):
    loopback.replies["a"] = [Reply(delay_s=5)]
    registered({"p": Selector([provider("a")], samples=1, scorer=default, deadline_s=0.2)})
    with pytest.raises(litellm.Timeout, match="timeout"):
        litellm.completion(model="cappy/p", messages=ASK)


@pytest.mark.parametrize(("other", "status"), [(Reply(status=503), 503), (Reply(text=""), 502)])
def test_failures_of_several_kinds_are_no_fault_of_the_request(panel, loopback, other, status):
    loopback.replies["a"] = [Reply(status=401)]
    loopback.replies["b"] = [other]
    with pytest.raises(Exception, match="openai/a: auth") as caught:
        litellm.completion(model="cappy/two", messages=ASK)
    assert caught.value.status_code == status


def test_abstaining_and_our_own_faults_have_a_status_too(registered, loopback, provider, default):
    def failing(_):
        raise StrategyError("no", None)

    registered(
        {
            "picky": Selector([provider("a")], samples=1, scorer=default, abstain_below=50.0),
            "failing": Selector([provider("a")], samples=2, scorer=default, strategy=Vote(failing)),
        }
    )
    for model, kind, said in (
        ("cappy/picky", litellm.UnprocessableEntityError, "no good answer"),
        ("cappy/failing", litellm.InternalServerError, "'vote' failed"),
    ):
        with pytest.raises(kind, match=said):
            litellm.completion(model=model, messages=ASK)


async def test_what_the_caller_got_wrong_is_a_bad_request(panel):
    with pytest.raises(litellm.BadRequestError, match="n can't be a call parameter"):
        litellm.completion(model="cappy/two", messages=ASK, n=3)
    with pytest.raises(litellm.NotFoundError, match="no preset 'cappy/three'; there is cappy/one, cappy/two"):
        litellm.completion(model="cappy/three", messages=ASK)
    with pytest.raises(litellm.NotFoundError, match="cappy/three"):
        await litellm.acompletion(model="cappy/three", messages=ASK, stream=True)


def test_a_caller_can_not_choose_where_the_models_are(panel, loopback):
    with_key = litellm.completion(
        model="cappy/two", messages=ASK, api_key="sk-callers-own", api_base="http://x.invalid"
    )
    assert with_key.choices[0].message.content == RIGHT
    assert set(loopback.keys) == {"sk-secret-1234"}


def test_registering_again_replaces_and_keeps_other_providers(panel):
    litellm.custom_provider_map.append({"provider": "other", "custom_handler": panel})
    register({})
    assert [item["provider"] for item in litellm.custom_provider_map] == ["other", "cappy"]
    with pytest.raises(InputError, match="'x' must be a Selector, got str"):
        register({"x": "openai/gpt-5-mini"})


def test_an_answer_of_one_vendor_goes_back_to_all_models_as_its_text(panel, loopback):
    said = {"role": "assistant", "content": RIGHT, "reasoning_content": "Nauta ..."}
    loopback.replies["b"] = [Reply(message=said), Reply(text=RIGHT)]
    message = litellm.completion(model="cappy/two", messages=ASK).choices[0].message
    assert message.reasoning_content == "Nauta ..."
    again = [*ASK, message.model_dump(exclude_none=True), {"role": "user", "content": "Again."}]
    assert litellm.completion(model="cappy/two", messages=again).choices[0].message.content == RIGHT
    assert loopback.requests[-1]["messages"][1] == {"role": "assistant", "content": RIGHT}


@pytest.mark.parametrize("extra", [{"model": "c"}, {"n": 3}, {"messages": []}, {"timeout": 9}])
def test_an_extra_body_goes_past_no_limit(panel, loopback, extra):
    with pytest.raises(litellm.BadRequestError, match="can't be a call parameter"):
        litellm.completion(model="cappy/two", messages=ASK, extra_body=extra)
    assert loopback.requests == []


REASONS = [("MAX_TOKENS", "length"), ("end_turn", "stop"), ("pause_turn", "length"), ("a_word_of_tomorrow", "stop")]


@pytest.mark.parametrize(("theirs", "ours"), REASONS)
def test_a_response_has_openais_finish_reason_and_keeps_the_other(theirs, ours):
    from litellm.types.utils import ModelResponse
    from litellm_cappy.responses import Chunks, fill, openai_reason

    selection = _selection("The Ucayali.", theirs)
    response = fill(ModelResponse(), "cappy/p", selection)
    assert response.choices[0].finish_reason == ours
    assert response.choices[0].provider_specific_fields["native_finish_reason"] == theirs
    (last,) = Chunks().of(selection)
    assert last["finish_reason"] == openai_reason(theirs)
    assert openai_reason(None) == "stop"
    assert openai_reason("content_filter: SAFETY") == "content_filter"


def test_a_response_can_be_written_whatever_characters_it_holds():
    from litellm.types.utils import ModelResponse
    from litellm_cappy.responses import Chunks, fill

    selection = _selection("The \ud83d Ucayali", "stop")
    response = fill(ModelResponse(), "cappy/p", selection)
    assert response.choices[0].message.content == "The \ufffd Ucayali"
    assert response.model_dump_json().encode()
    assert selection.text == "The \ud83d Ucayali"
    chunks = [chunk for piece in (Delta(message={"content": "\ud83d"}), selection) for chunk in Chunks().of(piece)]
    assert chunks[0]["text"] == "\ufffd"
    assert json.dumps(chunks, ensure_ascii=False).encode()


def _selection(text, reason):
    call = {"model": "m", "message": {"role": "assistant", "content": text}, "finish_reason": reason, "score": 0.5}
    return Selection(
        candidates=(Candidate(**call),),
        instruction=Instruction(text="Name a river.", policy="paper", cut_side="left"),
        scorer="s",
        strategy="argmax",
        usage=Usage(),
        cost=None,
        latency_s=0.0,
    )


OF_THE_OWNER = [
    {"fallbacks": [{"model": "openai/x", "api_base": "THIEF"}], "logit_bias": {"1": 1}},
    {"mock_response": "made up"},
    {"input_cost_per_token": 0.0, "output_cost_per_token": 1e-12},
    {"litellm_params": {"api_base": "THIEF"}},
    {"extra_headers": {"x-forwarded-to": "THIEF"}},
    {"drop_params": True},
]


@pytest.mark.parametrize("nested", [1, 2])
@pytest.mark.parametrize("extra", OF_THE_OWNER, ids=lambda extra: next(iter(extra)))
@pytest.mark.parametrize("way", ["sync", "async"])
async def test_what_litellm_acts_upon_is_not_a_callers_to_say(panel, loopback, extra, nested, way):
    with serve() as thief:
        body = json.loads(json.dumps(extra).replace("THIEF", thief.base))
        for _ in range(nested):
            body = {"extra_body": body}
        with pytest.raises(litellm.BadRequestError, match=f"{next(iter(extra))} can't be a call parameter"):
            if way == "sync":
                litellm.completion(model="cappy/two", messages=ASK, **body)
            else:
                await litellm.acompletion(model="cappy/two", messages=ASK, **body)
        assert thief.requests == loopback.requests == []


def test_what_openai_knows_can_stand_in_an_extra_body_too(panel, loopback):
    litellm.completion(model="cappy/two", messages=ASK, extra_body={"top_p": 0.5, "extra_body": {"stop": "u-7"}})
    assert {(request["top_p"], request["stop"]) for request in loopback.requests} == {(0.5, "u-7")}


def test_what_litellm_puts_among_the_parameters_is_left_out(panel, loopback):
    own = {"drop_params": True, "max_retries": 3, "mock_response": "made up", "stream": False}
    response = panel.completion("two", ASK, litellm.ModelResponse(), own | {"temperature": 0.5})
    assert response.choices[0].message.content == RIGHT
    assert {request["temperature"] for request in loopback.requests} == {0.5}

"""What a call may cost at most is never less than what it does cost."""

from __future__ import annotations

import base64
import json

import litellm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cappy_select import (
    InputError,
    LiteLLMProvider,
    OpenAIProvider,
    Plan,
    Request,
    Selector,
    Usage,
)
from cappy_select.ask.calls import Call, highest_price
from cappy_select.ask.prices import highest_of, most_usage
from cappy_select.ask.sampling import token_limit


def asked(*messages, n=1, **params) -> Request:
    return Request(messages=messages or ({"role": "user", "content": "q"},), n=n, params=params)


def prompt_bound(*messages, **params) -> int:
    return most_usage(asked(*messages), params).prompt_tokens


texts = st.text(st.characters(codec="utf-8"), max_size=60)
calls_ = st.builds(
    lambda name, said: [{"id": "c", "type": "function", "function": {"name": name, "arguments": said}}], texts, texts
)
messages_ = st.one_of(
    st.builds(
        lambda role, said: {"role": role, "content": said}, st.sampled_from(["user", "system", "assistant"]), texts
    ),
    st.builds(lambda said, name: {"role": "user", "content": said, "name": name}, texts, texts),
    st.builds(lambda calls: {"role": "assistant", "content": "", "tool_calls": calls}, calls_),
    st.builds(lambda said: {"role": "tool", "tool_call_id": "c", "content": said}, texts),
    st.builds(lambda said: {"role": "user", "content": [{"type": "text", "text": said}]}, texts),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(messages_, min_size=1, max_size=6))
def test_a_prompt_never_has_more_tokens_than_the_bound(messages):
    assert prompt_bound(*messages) >= litellm.token_counter(model="gpt-4o", messages=messages)


LONG = "x" * 50_000


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "q", "name": LONG},
        {"role": "tool", "tool_call_id": "c", "content": LONG},
        {"role": "assistant", "content": None, "reasoning_content": LONG},
        {"role": "user", "content": [{"type": "file", "file": {"filename": "a.pdf", "file_data": LONG}}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": LONG, "format": "wav"}}]},
        {"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": LONG}}]},
    ],
    ids=["name", "tool", "reasoning", "file", "audio", "document"],
)
def test_all_that_is_sent_counts(message):
    assert prompt_bound(message) >= 50_000


def test_an_image_is_left_out_and_what_stands_beside_it_is_not():
    picture = base64.b64encode(b"x" * 100_000).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        {"type": "text", "text": LONG},
    ]
    assert 50_000 <= prompt_bound({"role": "user", "content": parts}) < 51_000


@pytest.mark.parametrize("name", ["tools", "response_format", "documents", "prediction"])
def test_parameters_with_texts_count_too(name):
    assert prompt_bound({"role": "user", "content": "q"}, **{name: [{"text": LONG}]}) >= 50_000


def test_what_no_client_can_send_is_more_than_any_limit():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    circle: list = []
    circle.append(circle)
    for content in (deep, circle):
        assert prompt_bound({"role": "user", "content": [{"type": "text", "text": content}]}) >= 10**9


def test_the_larger_limit_of_two_bounds_every_answer_that_is_asked_for():
    assert most_usage(asked(n=3), {"max_tokens": 10, "max_completion_tokens": 20}).completion_tokens == 60
    assert most_usage(asked(), {"max_tokens": 10, "extra_body": {"max_tokens": 30}}).completion_tokens == 30
    assert most_usage(asked(), {"max_tokens": 10, "extra_body": {"Max_Tokens": 30}}).completion_tokens == 30
    assert most_usage(asked(), {"max_tokens": 10, "extra_body": {"n_predict": 30}}).completion_tokens == 30
    assert most_usage(asked(), {"max_tokens": 10, "extra_body": {"n_predict": -1}}).completion_tokens == 0
    assert most_usage(asked(), {"n": 4, "max_tokens": 10}).completion_tokens == 40  # a provider's own
    assert most_usage(asked(), {"max_tokens": 10, "extra_body": {"best_of": 5}}).completion_tokens == 50
    assert most_usage(asked(), {"max_tokens": None}).completion_tokens == 0


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [0, -1, "5", float("nan"), float("inf"), 2.5, True, [5]])
def test_a_limit_of_tokens_that_is_none_is_refused_before_anything_is_asked(
    loopback, provider, direct, tiny, name, value
):
    with pytest.raises(InputError, match=name):
        token_limit({name: value})
    for make in (provider, direct):
        with pytest.raises(InputError, match=name):
            make("m", **{name: value})
    with pytest.raises(InputError, match=r"max_(completion_)?tokens"):
        Selector([direct("m")], samples=1, scorer=tiny, **{name: value})
    with pytest.raises(InputError, match=r"max_(completion_)?tokens"):
        Selector([direct("m")], samples=1, scorer=tiny, max_cost=1.0).select("q", **{name: value})
    assert loopback.requests == []


def test_a_plan_takes_no_text_for_a_limit_of_tokens():
    with pytest.raises(InputError, match="max_tokens"):
        Plan.load({"samplings": [{"max_tokens": "5"}]})


@pytest.mark.parametrize("price", [-1e-6, float("nan"), float("inf"), "1e-6", True, 1e7])
def test_a_price_that_can_not_be_is_refused(price):
    for make in (
        lambda **more: OpenAIProvider("m", api_key="k", **more),
        lambda **more: LiteLLMProvider("openai/m", **more),
    ):
        with pytest.raises(InputError, match="input_cost_per_token"):
            make(input_cost_per_token=price, output_cost_per_token=1e-6)
        with pytest.raises(InputError, match="output_cost_per_token"):
            make(input_cost_per_token=1e-6, output_cost_per_token=price)


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf"), "1", True])
def test_a_money_limit_that_is_none_is_refused(direct, tiny, limit):
    with pytest.raises(InputError, match="max_cost"):
        Selector([direct("m")], scorer=tiny, max_cost=limit)


def test_a_providers_own_limit_of_tokens_bounds_its_answers(direct, provider):
    request = asked()
    for make in (direct, provider):
        short, long = (highest_price(Call(make("m", max_tokens=tokens), request)) for tokens in (10, 1010))
        assert long - short == pytest.approx(1000 * 2e-6)


def of(model: str, request: Request, **own) -> float:
    return highest_price(Call(LiteLLMProvider(model, api_key="k" * 20, **own), request))


def test_a_dearer_service_tier_counts_when_it_may_be_had():
    plain = of("openai/gpt-5-mini", asked(max_tokens=1000))
    for dearer in (
        of("openai/gpt-5-mini", asked(max_tokens=1000, service_tier="priority")),
        of("openai/gpt-5-mini", asked(max_tokens=1000, service_tier="auto")),
        of("openai/gpt-5-mini", asked(max_tokens=1000), service_tier="priority"),
        of("openai/gpt-5-mini", asked(max_tokens=1000), extra_body={"service_tier": "priority"}),
        of("openai/gpt-5-mini", asked(max_tokens=1000, extra_body={"x": 1}), extra_body={"service_tier": "priority"}),
    ):
        assert dearer >= 1000 * 3.6e-6 > plain
    assert of("openai/gpt-5-mini", asked(max_tokens=1000, service_tier="flex")) >= 1000 * 2e-6


def test_a_long_prompt_counts_at_its_own_rate():
    short, long = ("x" * 100_000, "x" * 300_000)
    rates = [
        of("gemini/gemini-2.5-pro", asked({"role": "user", "content": text})) / len(text) for text in (short, long)
    ]
    assert rates[1] > 1.9 * rates[0]


def test_what_is_written_into_a_cache_counts_at_its_own_rate():
    prompt = [{"type": "text", "text": "x" * 100_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert of("anthropic/claude-sonnet-4-5", asked({"role": "user", "content": prompt})) >= 100_000 * 6e-6


def test_a_mode_that_multiplies_the_price_counts():
    request = asked(max_tokens=1000, speed="fast")
    listed = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6, "provider_specific_entry": {"fast": 6.0}}
    assert highest_of(listed, Usage(completion_tokens=1000), request, request.params) == pytest.approx(6e-3)


@pytest.mark.parametrize("tier", [None, "priority", "flex"])
@pytest.mark.parametrize("prompt", [1000, 150_000, 600_000])
def test_no_chat_model_of_litellms_list_bills_more_than_its_bound(tier, prompt):
    usage, request = Usage(prompt_tokens=prompt, completion_tokens=5000), asked(service_tier=tier)
    checked = 0
    for model, listed in litellm.model_cost.items():
        if listed.get("mode") not in ("chat", "responses") or not listed.get("input_cost_per_token"):
            continue
        vendor = listed["litellm_provider"]
        if model.startswith(f"{vendor}/{vendor}/"):
            continue  # another entry's prices are taken
        try:
            billed = litellm.cost_per_token(
                model=model,
                custom_llm_provider=vendor,
                prompt_tokens=prompt,
                completion_tokens=5000,
                service_tier=tier,
            )
        except Exception:
            continue
        bound = highest_of(listed, usage, request, request.params)
        checked += 1
        assert bound is not None, model
        assert sum(billed) <= bound * (1 + 1e-9), model
    assert checked > 500


def test_json_in_a_schema_counts_as_it_is_sent():
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"description": "é" * 10_000}}}
    bound = prompt_bound({"role": "user", "content": "q"}, response_format=schema)
    assert bound >= len(json.dumps(schema, ensure_ascii=False).encode())

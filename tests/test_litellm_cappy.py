from __future__ import annotations

import litellm
import pytest
from litellm_cappy import register
from loopback import Reply

from cappy_select import Selector

ASK = [{"role": "user", "content": "The Marañón and the Ucayali meet near Nauta. Which rivers meet near Nauta?"}]
RIGHT = "The Marañón and the Ucayali."


@pytest.fixture
def preset(loopback, provider, default):
    loopback.replies["a"] = [Reply(text="Peru has many rivers.")]
    loopback.replies["b"] = [Reply(text=RIGHT)]
    before = litellm.custom_provider_map
    yield register({"two": Selector([provider("a"), provider("b")], samples=1, scorer=default)})
    litellm.custom_provider_map = before


def test_litellm_completion_answers_with_the_best(preset, loopback):
    response = litellm.completion(model="cappy/two", messages=ASK, temperature=0.4)
    assert response.choices[0].message.content == RIGHT
    assert response.choices[0].finish_reason == "stop"
    assert response.usage.prompt_tokens == 20
    assert response.usage.total_tokens == 28
    assert response._hidden_params["response_cost"] == pytest.approx(2 * 18e-6)
    assert response._hidden_params["cappy_score"] > 0.5
    assert {request["temperature"] for request in loopback.requests} == {0.4}


async def test_litellm_acompletion_too(preset):
    response = await litellm.acompletion(model="cappy/two", messages=ASK)
    assert response.choices[0].message.content == RIGHT


async def test_it_serves_behind_a_router(preset):
    router = litellm.Router(
        model_list=[{"model_name": "best", "litellm_params": {"model": "cappy/two"}}], num_retries=0
    )
    response = await router.acompletion(model="best", messages=ASK, n=1, stream=False, timeout=20)
    assert response.choices[0].message.content == RIGHT


def test_no_answer_is_an_error(preset, loopback):
    for name in "ab":
        loopback.replies[name] = [Reply(status=401)]
    with pytest.raises(Exception, match="0 usable answers"):
        litellm.completion(model="cappy/two", messages=ASK, num_retries=0)


def test_an_unknown_preset_names_the_known_ones(preset):
    with pytest.raises(Exception, match="cappy/two"):
        litellm.completion(model="cappy/three", messages=ASK)


def test_registering_again_replaces_and_keeps_other_providers(preset):
    litellm.custom_provider_map.append({"provider": "other", "custom_handler": preset})
    register({})
    assert [item["provider"] for item in litellm.custom_provider_map] == ["other", "cappy"]

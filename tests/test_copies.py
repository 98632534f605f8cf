"""Copies are shared, pickles are made again from what the original was made with."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import pytest
from langchain_cappy import CappyCompressor, CappyMiddleware, CappySelector, ChatCappy
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from loopback import Reply

from cappy_select import (
    JsonSchema,
    LiteLLMProvider,
    Matches,
    OpenAIProvider,
    ScoreCache,
    Scorer,
    Selector,
    Vote,
)

KEY = "sk-of-the-environment"


def anew(thing):
    return pickle.loads(pickle.dumps(thing))


def shouted(text):
    return f"{text}!"


def first_word(candidate):
    return candidate.text.split()[0]


def is_river(candidate):
    return "river" in candidate.text.lower() or "it is no river"


@pytest.fixture
def selector(loopback, tiny, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    loopback.replies["m"] = [Reply(text="A river."), Reply(text="A lake.")]
    models = [LiteLLMProvider("openai/m", api_base=loopback.base), OpenAIProvider("m", api_base=loopback.base)]
    gates = [is_river, Matches("^A")]
    return Selector(iter(models), samples=1, scorer=tiny, gates=gates, strategy=Vote(first_word), temperature=0.5)


def test_a_copy_is_the_same_and_shares_what_is_open(selector, tiny):
    for thing in (selector, tiny, *selector._planner.providers):
        assert copy.copy(thing) is copy.deepcopy(thing) is thing
    assert copy.deepcopy({"panel": [selector]})["panel"][0] is selector


def test_a_pickled_selector_asks_and_chooses_as_before(selector, loopback):
    text = selector.select("q").text
    again = anew(anew(selector))
    assert again.plan == selector.plan
    assert (again.scorer.bundle.digest, again.scorer is selector.scorer) == (selector.scorer.bundle.digest, False)
    loopback.replies["m"] = [Reply(text="A river."), Reply(text="A lake.")]
    assert again.select("q").text == text == "A river."
    assert [request["temperature"] for request in loopback.requests] == [0.5] * 4
    assert set(loopback.keys) == {KEY}


def chosen_in_another_process(selector, base):
    return selector.select("q").text


def test_a_worker_that_is_spawned_gets_it_as_an_argument(selector, loopback):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(chosen_in_another_process, (selector, loopback.base)) == "A river."


def test_a_key_is_in_a_pickle_only_if_it_was_given(selector, tiny, loopback):
    assert KEY.encode() not in pickle.dumps(selector)
    chat = ChatCappy(models=["openai/m", "openai:m"], scorer=tiny, api_base=loopback.base)
    chat.invoke("q")  # the clients are made, with the key
    assert KEY.encode() not in pickle.dumps(chat)
    given = Selector(["openai/m"], scorer=tiny, api_key="sk-given-1234", api_base=loopback.base)
    assert b"sk-given-1234" in pickle.dumps(given)


@pytest.mark.parametrize("part", [{"gates": [lambda candidate: True]}, {"strategy": Vote(lambda text: text)}])
def test_what_can_not_be_pickled_is_named(provider, tiny, part):
    name = next(iter(part))
    with pytest.raises(TypeError, match=f"Selector was made with {name}= .*make the Selector in the other process"):
        pickle.dumps(Selector([provider("m")], scorer=tiny, **part))


def test_a_schema_can_be_pickled():
    gate = anew(JsonSchema({"type": "object"}))
    assert pickle.dumps(gate) == pickle.dumps(JsonSchema({"type": "object"}))


def test_a_scorer_is_loaded_again_and_its_cache_begins_empty(default):
    scorer = Scorer(default.bundle, threads=1, cache=ScoreCache(7))
    before = scorer.score("Name a river.", ["The Nile."])
    again = anew(scorer)
    assert again.cache_info()[3:] == (0, 7)
    assert again.score("Name a river.", ["The Nile."]) == before


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, anew, lambda model: model.model_copy(deep=True)])
def test_langchain_models_can_be_copied_and_pickled(loopback, tiny, copied):
    chat = ChatCappy(
        models=["openai/m"],
        samples=1,
        scorer=tiny,
        api_key="sk-given",
        api_base=loopback.base,
        model_kwargs={"top_p": 1},
    )
    again = copied(chat)
    again.model_kwargs["top_p"] = 0.25 if copied is not copy.copy else 1
    assert again.invoke("q").content == "ok"
    assert chat.model_kwargs == {"top_p": 1}
    assert loopback.keys == ["sk-given"]
    race = copied(CappySelector.from_runnables({"a": RunnableLambda(shouted)}, scorer=tiny))
    assert race.invoke("q") == "q!"
    assert copied(CappyCompressor(scorer=tiny)).top_n == 3
    fake = copied(ChatCappy(models=[FakeListChatModel(responses=["yes"])], samples=1, scorer=tiny))
    assert fake.with_retry().with_config(tags=["x"]).invoke("q").content == "yes"
    assert fake.bind(stop=["x"]).with_fallbacks([chat]).invoke("q").content == "yes"


def test_a_middleware_can_be_copied_and_pickled(tiny):
    middleware = CappyMiddleware(scorer=tiny, samples=2)
    assert copy.deepcopy(middleware) is middleware
    assert isinstance(anew(middleware), CappyMiddleware)


def test_a_langchain_field_that_can_not_be_pickled_is_named(tiny):
    with pytest.raises(TypeError, match="ChatCappy was made with gates="):
        pickle.dumps(ChatCappy(models=["openai/m"], scorer=tiny, api_key="k", gates=[lambda candidate: True]))
    with pytest.raises(TypeError, match="CappySelector was made with runnables="):
        pickle.dumps(CappySelector.from_runnables([lambda text: text], scorer=tiny))

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace

import pytest
from langchain_cappy import ChatCappy
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import ModelAuthenticationError, ModelRateLimitError
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, HumanMessagePromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableSequence
from loopback import Reply
from pydantic import BaseModel, ValidationError

from cappy_select import InputError, NoCandidates, NoGoodAnswer, Vote

QUESTION = "The Marañón and the Ucayali meet near Nauta. Which rivers meet near Nauta?"
RIGHT, WRONG = "The Marañón and the Ucayali.", "Peru has many rivers."


def answers(loopback):
    loopback.replies["a"] = [Reply(text=WRONG)]
    loopback.replies["b"] = [Reply(text=RIGHT)]


def test_it_stands_in_a_chain(loopback, chat):
    answers(loopback)
    prompt = ChatPromptTemplate.from_messages([("system", "Use the passage."), ("human", "{passage} {question}")])
    chain = prompt | chat() | StrOutputParser()
    inputs = {"passage": "The Marañón and the Ucayali meet near Nauta.", "question": "Which rivers meet near Nauta?"}
    assert chain.invoke(inputs) == RIGHT
    assert asyncio.run(chain.ainvoke(inputs)) == RIGHT
    assert loopback.requests[0]["messages"] == [
        {"role": "system", "content": "Use the passage."},
        {"role": "user", "content": f"{inputs['passage']} {inputs['question']}"},
    ]
    assert set(loopback.keys) == {"sk-secret"}


def test_the_message_says_what_it_cost_and_what_was_weighed(loopback, chat):
    answers(loopback)
    loopback.replies["broken"] = [Reply(status=401)]
    message = chat(models=["openai/a", "openai/b", "openai/broken"]).invoke(QUESTION)
    assert isinstance(message, AIMessage)
    assert message.usage_metadata == {"input_tokens": 20, "output_tokens": 8, "total_tokens": 28}
    metadata = message.response_metadata
    assert metadata["model_name"] == "openai/b"
    assert metadata["finish_reason"] == "stop"
    assert [row["model"] for row in metadata["candidates"]] == ["openai/b", "openai/a"]
    assert metadata["score"] == metadata["candidates"][0]["score"] > metadata["candidates"][1]["score"]
    assert [failure["kind"] for failure in metadata["failures"]] == ["auth"]
    assert metadata["cost"] is None


def test_parameters_and_stop_reach_the_models(loopback, chat):
    model = chat(temperature=0.3, max_tokens=9, stop=["!"])
    model.invoke("q")
    model.invoke("q", stop=["?"], temperature=0.7)
    first, second = loopback.requests[0], loopback.requests[-1]
    assert (first["temperature"], first["max_tokens"], first["stop"]) == (0.3, 9, ["!"])
    assert (second["temperature"], second["stop"]) == (0.7, ["?"])


def find(river: str) -> str:
    """Find a river."""
    return river


def call(arguments, name="find"):
    made = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return Reply(message={"role": "assistant", "content": None, "tool_calls": [made]}, finish_reason="tool_calls")


def test_a_conversation_and_a_tool_call_survive(loopback, chat):
    loopback.replies["a"] = loopback.replies["b"] = [call('{"river": "Ucayali"}')]
    message = (
        chat()
        .bind_tools([find])
        .invoke([SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("Find.")])
    )
    assert message.tool_calls == [{"name": "find", "args": {"river": "Ucayali"}, "id": "1", "type": "tool_call"}]
    assert message.response_metadata["finish_reason"] == "tool_calls"
    assert [m["role"] for m in loopback.requests[0]["messages"]] == ["system", "user", "assistant", "user"]
    assert loopback.requests[0]["tools"][0]["function"]["name"] == "find"


def test_tool_calls_that_could_not_be_made_do_not_win(loopback, chat):
    loopback.replies["a"] = [call('{"riv'), call("{}"), call('{"river": "Nile"}', name="lose")]
    loopback.replies["b"] = [call('{"river": "Nile"}')]
    message = chat(samples=3).bind_tools([find]).invoke("Find the Nile.")
    assert message.tool_calls[0]["args"] == {"river": "Nile"}
    reasons = sorted(str(c["rejected"]) for c in message.response_metadata["candidates"] if c["model"] == "openai/a")
    assert [reason.split(":")[0] for reason in reasons] == [
        "calls the tool 'lose', which was not offered",
        "the arguments of find breaks the schema at $",
        "the arguments of find is not JSON",
    ]


def test_where_no_answer_has_its_form_the_first_comes_as_from_the_bare_model(loopback, chat):
    loopback.replies["a"] = [call('{"riv')]
    loopback.replies["b"] = [Reply(status=500)]
    asking = chat(max_retries=0).bind_tools([find])
    message = asking.invoke("Find the Nile.")
    assert message.tool_calls == []
    assert [(made["name"], made["args"]) for made in message.invalid_tool_calls] == [("find", '{"riv')]
    assert "the arguments of find is not JSON" in message.response_metadata["no_usable_answer"]
    assert message.usage_metadata["total_tokens"] == 14
    assert asyncio.run(asking.ainvoke("Find the Nile.")).invalid_tool_calls == message.invalid_tool_calls
    for models in (["openai/a", "openai/b"], ["openai/a"]):
        chunks = list(chat(models=models, max_retries=0).bind_tools([find]).stream("Find the Nile."))
        whole = sum(chunks[1:], chunks[0])
        assert whole.tool_call_chunks[0]["args"] == '{"riv'
        assert "is not JSON" in whole.response_metadata["no_usable_answer"]


def test_an_answer_that_has_more_than_its_form_against_it_is_none(loopback, chat):
    loopback.replies["a"] = [replace(call('{"riv'), finish_reason="length")]
    loopback.replies["b"] = [call('{"riv')]
    unlike = lambda candidate: "tool_calls" not in candidate.message  # noqa: E731
    for options in ({"models": ["openai/a"]}, {"gates": [unlike]}, {"min_usable": 2}, {"abstain_below": -9.0}):
        with pytest.raises(NoCandidates):
            chat(**options).bind_tools([find]).invoke("Find the Nile.")


def test_what_is_scored_of_a_tool_call_is_its_name_and_arguments(loopback, chat, default):
    loopback.replies["a"] = [call('{"river": "Nile"}')]
    loopback.replies["b"] = [call('{"river": "Ucayali"}')]
    message = chat().bind_tools([find]).invoke(QUESTION)
    scores = {c["model"]: c["score"] for c in message.response_metadata["candidates"]}
    expected = default.score(QUESTION, ['find({"river": "Nile"})', 'find({"river": "Ucayali"})'])
    assert [scores["openai/a"], scores["openai/b"]] == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, None),
        ("auto", "auto"),
        ("none", "none"),
        ("any", "required"),
        ("required", "required"),
        (True, {"type": "function", "function": {"name": "find"}}),
        ("find", {"type": "function", "function": {"name": "find"}}),
        ({"type": "function", "function": {"name": "find"}}, {"type": "function", "function": {"name": "find"}}),
    ],
)
def test_a_tool_choice_is_sent_in_openais_words(loopback, chat, choice, sent):
    reply = Reply(text=RIGHT) if choice == "none" else call('{"river": "Nile"}')
    loopback.replies["a"] = loopback.replies["b"] = [reply]
    chat().bind_tools([find], tool_choice=choice, parallel_tool_calls=False).invoke("Find the Nile.")
    assert loopback.requests[0].get("tool_choice") == sent
    assert loopback.requests[0]["parallel_tool_calls"] is False


def test_a_tool_choice_that_is_not_offered_is_an_error(chat):
    with pytest.raises(InputError, match="one of find, got 'lose'"):
        chat().bind_tools([find], tool_choice="lose")
    with pytest.raises(InputError, match="got 2"):
        chat().bind_tools([find, test_a_conversation_and_a_tool_call_survive], tool_choice=True)


class River(BaseModel):
    """A river."""

    name: str
    length_km: int


GOOD, BAD = '{"name": "Ucayali", "length_km": 1771}', '{"name": "Ucayali", "length_km": "long"}'


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_answers_that_break_the_schema_do_not_win(loopback, chat, method):
    reply = (lambda text: call(text, "River")) if method == "function_calling" else (lambda text: Reply(text=text))
    loopback.replies["a"], loopback.replies["b"] = [reply(BAD)], [reply(GOOD)]
    model = chat().with_structured_output(River, method=method)
    assert model.invoke("Which river?") == River(name="Ucayali", length_km=1771)
    assert list(model.stream("Which river?"))[-1] == River(name="Ucayali", length_km=1771)
    raw = chat().with_structured_output(River, method=method, include_raw=True).invoke("Which river?")
    assert raw["parsed"] == River(name="Ucayali", length_km=1771)
    assert raw["raw"].response_metadata["model_name"] == "openai/b"
    assert raw["parsing_error"] is None


def test_json_mode_wants_an_object_and_says_when_it_does_not_fit(loopback, chat):
    loopback.replies["a"], loopback.replies["b"] = [Reply(text="no JSON")], [Reply(text=BAD)]
    model = chat().with_structured_output(River, method="json_mode", include_raw=True)
    answer = model.invoke("Which river? JSON, please.")
    assert answer["parsed"] is None
    assert "length_km" in str(answer["parsing_error"])
    assert loopback.requests[0]["response_format"] == {"type": "json_object"}
    with pytest.raises(InputError, match="strict"):
        chat().with_structured_output(River, method="json_mode", strict=True)


def test_a_copy_with_other_fields_uses_them(loopback, chat):
    model = chat(temperature=0.1)
    copy = model.model_copy(update={"temperature": 0.9, "samples": 2})
    copy.invoke("q")
    assert [request["temperature"] for request in loopback.requests] == [0.9] * 4
    model.invoke("q")
    assert loopback.requests[-1]["temperature"] == 0.1
    assert copy._identifying_params != model._identifying_params


def test_what_was_cut_is_in_the_metadata(loopback, chat):
    message = chat().invoke([HumanMessage("word " * 900)])
    assert message.response_metadata["tokens_cut"]["instruction"] > 300


def test_no_answer_is_an_error_and_langchains_own_when_all_failed_alike(loopback, chat):
    loopback.replies["a"] = loopback.replies["b"] = [Reply(status=401)]
    with pytest.raises(NoCandidates) as caught:
        chat().invoke("q")
    assert isinstance(caught.value, ModelAuthenticationError)
    loopback.replies["b"] = [Reply(status=429)]
    with pytest.raises(NoCandidates) as caught:
        asyncio.run(chat(max_retries=0).ainvoke("q"))
    assert not isinstance(caught.value, ModelAuthenticationError)
    assert [failure.kind for failure in caught.value.exceptions] == ["auth", "rate_limit"]


def test_fallbacks_and_retries_work_as_with_any_chat_model(loopback, chat):
    loopback.replies["a"] = [Reply(status=429)]
    loopback.replies["b"] = [Reply(text=RIGHT)]
    busy = chat(models=["openai/a"], max_retries=0)
    model = busy.with_fallbacks([chat(models=["openai/b"])], exceptions_to_handle=(ModelRateLimitError,))
    assert model.invoke(QUESTION).text == RIGHT
    loopback.replies["a"] = [Reply(status=429), Reply(text=RIGHT)]
    again = busy.with_retry(retry_if_exception_type=(ModelRateLimitError,), wait_exponential_jitter=False)
    assert again.invoke(QUESTION).text == RIGHT


def test_the_key_is_not_shown(chat):
    model = chat()
    assert "sk-secret" not in repr(model)
    assert "sk-secret" not in str(model._identifying_params)


def test_the_winner_of_several_is_streamed_once_it_is_found(loopback, chat):
    answers(loopback)
    chunks = list(chat().stream(QUESTION))
    assert "".join(chunk.text for chunk in chunks) == RIGHT
    assert len(chunks) > 3
    assert chunks[-1].chunk_position == "last"
    whole = sum(chunks[1:], chunks[0])
    assert isinstance(whole, AIMessageChunk)
    assert whole.usage_metadata == {"input_tokens": 20, "output_tokens": 8, "total_tokens": 28}
    assert whole.response_metadata["model_name"] == "openai/b"


async def test_an_only_answer_is_streamed_as_it_comes(loopback, chat):
    loopback.replies["a"] = [Reply(text=RIGHT)]
    chain = chat(models=["openai/a"]) | StrOutputParser()
    pieces = [piece async for piece in chain.astream(QUESTION)]
    assert "".join(pieces) == RIGHT
    assert loopback.requests[0]["stream"] is True
    whole = None
    async for chunk in chat(models=["openai/a"]).astream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    assert whole.usage_metadata == {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}


def test_many_prompts_at_once(loopback, chat):
    answers(loopback)
    assert [message.text for message in chat().batch([QUESTION] * 3)] == [RIGHT] * 3
    assert len(loopback.requests) == 6


def test_its_own_answers_can_be_cached(loopback, chat):
    answers(loopback)
    model = chat(cache=InMemoryCache())
    assert model.invoke(QUESTION).text == model.invoke(QUESTION).text == RIGHT
    assert len(loopback.requests) == 2
    model.model_copy(update={"samples": 2}).invoke(QUESTION)
    assert len(loopback.requests) == 6
    with pytest.raises(NoGoodAnswer):
        model.model_copy(update={"abstain_below": 9.0}).invoke(QUESTION)
    with pytest.raises(NoCandidates):
        model.model_copy(update={"gates": [lambda candidate: False]}).invoke(QUESTION)


def test_the_selectors_options_are_fields(loopback, chat):
    loopback.replies["a"] = loopback.replies["b"] = [Reply(text=WRONG)]
    with pytest.raises(NoGoodAnswer):
        chat(abstain_below=9.0).invoke(QUESTION)
    loopback.replies["a"] = [Reply(text="Nile"), Reply(text="The Ucayali"), Reply(text="nile")]
    message = chat(
        models=["openai/a"], samples=None, plan={"samplings": [{"n": 3, "temperature": 0.7}]}, strategy=Vote()
    ).invoke("q")
    assert message.text.lower() == "nile"
    assert loopback.requests[-1]["temperature"] == 0.7
    with pytest.raises(NoCandidates) as caught:
        chat(gates=[lambda candidate: "too short" if len(candidate.text) < 99 else None]).invoke("q")
    assert "too short" in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"models": []}, {"model_kwargs": {"timeout": 3}}, {"model_kwargs": {"samples": 3}}, {"samples": 0},
        {"timeout": 0}, {"plan": "quick", "samples": 3}, {"temprature": 1},
    ],
)  # fmt: skip
def test_bad_options_are_said_at_construction(chat, options):
    with pytest.raises((InputError, ValidationError)):
        chat(**options)


def test_its_configuration_can_be_saved_without_the_key(loopback, chat, monkeypatch):
    answers(loopback)
    prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
    text = dumps(prompt | chat(scorer=None, temperature=0.3) | StrOutputParser())
    assert "sk-secret" not in text
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other-1234")
    known = [
        ChatCappy,
        ChatPromptTemplate,
        HumanMessagePromptTemplate,
        PromptTemplate,
        RunnableSequence,
        StrOutputParser,
    ]
    chain = loads(text, valid_namespaces=["langchain_cappy"], allowed_objects=known, secrets_from_env=True)
    assert chain.invoke({"question": QUESTION}) == RIGHT
    assert loopback.requests[0]["temperature"] == 0.3
    assert set(loopback.keys) == {"sk-other-1234"}


def test_without_the_extra_the_error_names_it():
    for blocked, name in (("langchain_core", "ChatCappy"), ("langchain", "CappyMiddleware")):
        script = f"import sys; sys.modules[{blocked!r}] = None\nfrom langchain_cappy import {name}"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "cappy-select[langchain]" in done.stderr


def test_a_field_that_there_is_not_is_refused_and_the_one_meant_is_named(chat):
    for wrong, meant in (("sample", "'samples'"), ("deadline_s", "'timeout'"), ("top_p", r"model_kwargs=\{'top_p'")):
        with pytest.raises(TypeError, match=f"ChatCappy has no argument '{wrong}'.*{meant}"):
            chat(**{wrong: 1})


@pytest.mark.parametrize("how", ["invoke", "bind", "stream", "model_kwargs"])
def test_what_litellm_acts_upon_never_reaches_it(chat, loopback, how):
    never = {"mock_response": "made up", "fallbacks": [{"model": "openai/x", "api_base": "http://thief.invalid"}]}
    for name, value in never.items():
        given = {name: value}
        with pytest.raises(ValueError, match=f"{name} can't be a call parameter"):  # pydantic's, of a field
            if how == "invoke":
                chat().invoke("q", extra_body={"extra_body": given})
            elif how == "bind":
                chat().bind(**given).invoke("q")
            elif how == "stream":
                list(chat().stream("q", **given))
            else:
                chat(model_kwargs=given)
    assert loopback.requests == []


def test_a_call_may_set_what_its_field_allows(chat, loopback):
    loopback.takes = frozenset({"min_p"})
    model = chat(models=["openai/a"], allowed_params=["min_p"])
    model.invoke("q", min_p=0.1, top_p=0.5)
    assert (loopback.requests[0]["min_p"], loopback.requests[0]["top_p"]) == (0.1, 0.5)
    with pytest.raises(InputError, match="top_a can't be a call parameter"):
        model.invoke("q", top_a=1)

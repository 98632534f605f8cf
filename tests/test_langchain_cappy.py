from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from langchain_cappy import ChatCappy
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_tests.unit_tests import ChatModelUnitTests
from loopback import Reply

from cappy_select import NoCandidates

QUESTION = "The Marañón and the Ucayali meet near Nauta. Which rivers meet near Nauta?"
RIGHT, WRONG = "The Marañón and the Ucayali.", "Peru has many rivers."


@pytest.fixture
def chat(loopback, default):
    def make(**options):
        given = {"models": ["openai/a", "openai/b"], "samples": 1, "scorer": default, "api_key": "sk-secret"}
        return ChatCappy(**given | {"api_base": loopback.base} | options)

    return make


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


def test_a_conversation_and_a_tool_call_survive(loopback, chat):
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"q": "river"}'}}
    for name in "ab":
        loopback.replies[name] = [Reply(message={"role": "assistant", "content": None, "tool_calls": [call]})]
    message = chat().invoke([SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("Find.")])
    assert message.tool_calls == [{"name": "find", "args": {"q": "river"}, "id": "1", "type": "tool_call"}]
    assert [m["role"] for m in loopback.requests[0]["messages"]] == ["system", "user", "assistant", "user"]


def test_a_tool_call_cut_off_in_its_arguments_is_invalid_and_not_lost(loopback, chat):
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"q": "riv'}}
    for name in "ab":
        loopback.replies[name] = [Reply(message={"role": "assistant", "content": None, "tool_calls": [call]})]
    message = chat().invoke("q")
    assert message.tool_calls == []
    assert message.invalid_tool_calls[0]["args"] == '{"q": "riv'


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


def test_no_answer_is_an_error_and_never_an_answer(loopback, chat):
    for name in "ab":
        loopback.replies[name] = [Reply(status=401)]
    with pytest.raises(NoCandidates):
        chat().invoke("q")


def test_the_key_is_not_shown(chat):
    model = chat()
    assert "sk-secret" not in repr(model)
    assert "sk-secret" not in str(model._identifying_params)


def test_langchain_streams_the_winner_whole(loopback, chat):
    answers(loopback)
    chunks = list(chat().stream(QUESTION))
    assert "".join(chunk.text for chunk in chunks) == RIGHT


def test_without_the_extra_the_error_names_it():
    script = "import sys; sys.modules['langchain_core'] = None\nimport langchain_cappy"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "cappy-select[langchain]" in done.stderr


class TestStandard(ChatModelUnitTests):
    """LangChain's own conformance tests, as far as this first face goes: no tools yet."""

    @property
    def chat_model_class(self):
        return ChatCappy

    @property
    def chat_model_params(self):
        return {"models": ["openai/a"], "api_key": "k"}

    @property
    def has_tool_calling(self):
        return False

    @property
    def has_structured_output(self):
        return False

"""LangChain chat models among those that a ChatCappy asks."""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

import httpx
import pytest
from langchain_cappy import ChatCappy, LangChainProvider
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler, get_usage_metadata_callback
from langchain_core.exceptions import ContextOverflowError, ModelRateLimitError
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from loopback import Reply
from pydantic import SecretStr, ValidationError
from test_langchain_cappy import BAD, GOOD, QUESTION, RIGHT, WRONG, River, answers, call

from cappy_select import NoCandidates


@pytest.fixture
def other(loopback):
    """A chat model of another package."""
    return ChatOpenAI(model="c", api_key="sk-secret-1234", base_url=loopback.base, max_retries=0, stream_usage=True)


class Counting(BaseCallbackHandler):
    def __init__(self):
        self.started, self.ended = [], []

    def on_chat_model_start(self, serialized, messages, **kwargs):
        self.started.append(kwargs.get("name"))

    def on_llm_end(self, response, **kwargs):
        self.ended.append(response)


def test_langchain_models_and_names_are_asked_together_and_reported_once(loopback, chat, other):
    answers(loopback)
    loopback.replies["c"] = [Reply(text=WRONG, usage={"prompt_tokens": 100, "completion_tokens": 7})]
    counting, usage = Counting(), UsageMetadataCallbackHandler()
    model = chat(models=["openai/a", "openai/b", other], samples=2)
    message = model.invoke(QUESTION, {"callbacks": [counting, usage]})
    assert message.text == RIGHT
    assert {row["model"] for row in message.response_metadata["candidates"]} == {"openai/a", "openai/b", "openai/c"}
    assert len(counting.started) == len(counting.ended) == 1
    assert message.usage_metadata == {"input_tokens": 240, "output_tokens": 30, "total_tokens": 270}
    assert list(usage.usage_metadata.values()) == [message.usage_metadata]
    assert loopback.calls_to("c") == 2


def test_tokens_and_dollars_are_what_the_server_counted(loopback, chat, provider, other):
    answers(loopback)
    loopback.replies["c"] = [Reply(text=WRONG, usage={"prompt_tokens": 100, "completion_tokens": 7})]
    priced = LangChainProvider(other, input_cost_per_token=1e-6, output_cost_per_token=2e-6)
    model, usage = chat(models=[provider("a"), provider("b"), priced], samples=2), UsageMetadataCallbackHandler()
    message = model.invoke(QUESTION, {"callbacks": [usage]})
    (counted,) = usage.usage_metadata.values()
    billed = loopback.billed
    assert (counted["input_tokens"], counted["output_tokens"]) == (billed["prompt_tokens"], billed["completion_tokens"])
    dollars = billed["prompt_tokens"] * 1e-6 + billed["completion_tokens"] * 2e-6
    assert message.response_metadata["cost"] == pytest.approx(dollars)


def test_a_langchain_models_answer_is_returned_as_it_was(loopback, chat):
    original = AIMessage(
        content=[{"type": "reasoning", "reasoning": "Nauta ..."}, {"type": "text", "text": RIGHT}],
        additional_kwargs={"kept": True},
        response_metadata={"finish_reason": "stop", "service": "x"},
    )
    message = chat(models=[FakeMessagesListChatModel(responses=[original])]).invoke(QUESTION)
    assert message.content == original.content
    assert message.additional_kwargs == {"kept": True}
    assert message.response_metadata["service"] == "x"
    assert message.response_metadata["score"] > 0.5


def test_tools_and_forms_reach_langchain_models(loopback, chat, other):
    loopback.replies["c"] = [call(BAD, "River"), call(GOOD, "River")]
    model = chat(models=[other], samples=2).with_structured_output(River)
    assert model.invoke("Which river?") == River(name="Ucayali", length_km=1771)
    assert loopback.requests[0]["tool_choice"] == {"type": "function", "function": {"name": "River"}}
    loopback.replies["c"] = [Reply(text=GOOD)]
    assert chat(models=[other]).with_structured_output(River, method="json_schema").invoke("Which?").length_km == 1771


def test_an_only_langchain_model_streams_through(loopback, chat, other):
    loopback.replies["c"] = [Reply(text=RIGHT)]
    chunks = list(chat(models=[other]).stream(QUESTION))
    assert "".join(chunk.text for chunk in chunks) == RIGHT
    assert loopback.requests[0]["stream"] is True
    assert sum(chunks[1:], chunks[0]).usage_metadata["total_tokens"] == 14


def test_a_langchain_model_that_fails_is_a_failure_among_others(loopback, chat, other):
    answers(loopback)
    loopback.replies["c"] = [Reply(status=429)]
    message = chat(models=["openai/b", other], max_retries=0).invoke(QUESTION)
    assert [(row["model"], row["kind"]) for row in message.response_metadata["failures"]] == [
        ("openai/c", "rate_limit")
    ]


def test_context_managers_count_langchain_models_once_too(loopback, chat, other):
    loopback.replies["c"] = [Reply(text=RIGHT)]
    with get_usage_metadata_callback() as counted:
        chat(models=[other], samples=2).invoke(QUESTION)
    assert {row["total_tokens"] for row in counted.usage_metadata.values()} == {28}


def test_one_langchain_model_serves_synchronous_and_asynchronous_callers(loopback, chat, other):
    loopback.replies["c"] = [Reply(text=RIGHT)]
    model = chat(models=[other], samples=2, max_retries=0)
    assert model.invoke(QUESTION).response_metadata["failures"] == []
    assert asyncio.run(other.ainvoke(QUESTION)).text == RIGHT  # its client is bound to this loop, which is closed now
    assert model.invoke(QUESTION).response_metadata["failures"] == []
    assert len(list(model.model_copy(update={"samples": 1}).stream(QUESTION))) > 3


class Recording(FakeMessagesListChatModel):
    seen: ClassVar[list] = []

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.seen.append(messages)
        return super()._generate(messages, stop, run_manager, **kwargs)


def test_langchain_models_see_the_callers_own_messages(chat):
    history = [
        HumanMessage("Hi"),
        AIMessage(content=[{"type": "thinking", "thinking": "…", "signature": "s"}, {"type": "text", "text": "Hello"}]),
        HumanMessage(QUESTION),
    ]
    model = chat(models=[Recording(responses=[AIMessage(RIGHT)])], samples=1)
    model.invoke(history)
    list(model.stream(history))
    asyncio.run(model.ainvoke(history))
    assert [messages[1].content for messages in Recording.seen] == [history[1].content] * 3


def test_what_a_langchain_model_said_is_in_its_stream_too(chat):
    said = AIMessage(
        [{"type": "text", "text": RIGHT}],
        additional_kwargs={"reasoning_content": "…"},
        response_metadata={"service": "x", "finish_reason": "stop"},
    )
    for samples in (1, 2):
        whole = None
        for chunk in chat(models=[FakeMessagesListChatModel(responses=[said])], samples=samples).stream(QUESTION):
            whole = chunk if whole is None else whole + chunk
        assert whole.content == said.content
        assert whole.additional_kwargs == said.additional_kwargs
        assert whole.response_metadata["service"] == "x"


def test_calls_that_could_not_be_read_go_back_with_their_answers(loopback, chat):
    answers(loopback)
    unread = {"name": "find", "args": "{", "id": "7", "error": "?", "type": "invalid_tool_call"}
    history = [
        HumanMessage("Find."),
        AIMessage("", invalid_tool_calls=[unread]),
        ToolMessage("not JSON", tool_call_id="7"),
        HumanMessage(QUESTION),
    ]
    assert chat().invoke(history).text == RIGHT
    assert loopback.requests[0]["messages"][1]["tool_calls"][0]["id"] == "7"


def test_a_hanging_langchain_model_holds_no_other_up(loopback, chat):
    class Hanging(FakeMessagesListChatModel):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            time.sleep(20)

    answers(loopback)
    began = time.monotonic()
    with pytest.raises(NoCandidates):
        chat(models=[Hanging(responses=[AIMessage("x")])], samples=40, timeout=0.5).invoke("q")
    assert chat().invoke(QUESTION).text == RIGHT
    assert time.monotonic() - began < 15


def test_a_key_of_a_langchain_model_is_in_no_message(loopback, chat, other):
    other.openai_api_key = SecretStr("quite-another-form")
    loopback.replies["c"] = [Reply(status=401, error="no such key: quite-another-form")]
    with pytest.raises(NoCandidates) as caught:
        chat(models=[other]).invoke("q")
    assert "no such key: ***" in str(caught.value)
    with pytest.raises(ValidationError) as wrong:
        ChatCappy(api_key="quite-another-form")
    assert "quite" not in str(wrong.value)


def test_a_langchain_model_may_have_prices(loopback, chat, other):
    priced = LangChainProvider(other, input_cost_per_token=1e-6, output_cost_per_token=2e-6)
    assert chat(models=[priced], samples=2).invoke(QUESTION).response_metadata["cost"] == pytest.approx(36e-6)


def test_samples_of_a_cached_langchain_model_differ(loopback, chat, other):
    other.cache = InMemoryCache()
    loopback.replies["c"] = [Reply(text=WRONG), Reply(text=RIGHT)]
    message = chat(models=[other], samples=2).invoke(QUESTION)
    assert message.text == RIGHT
    assert len(loopback.requests) == 2


class Failing(FakeMessagesListChatModel):
    """A model whose package raises what this makes."""

    make: Any = None

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        raise self.make()


def httpx_error(status, text="{}"):
    request = httpx.Request("POST", "https://example.org")
    return httpx.HTTPStatusError(text, request=request, response=httpx.Response(status, request=request))


def group(*errors):
    return ExceptionGroup("several", errors)


def aws_error(code, status, text="Try later"):
    """As botocore's ClientError."""
    error = Exception(f"An error occurred ({code}) when calling the Converse operation: {text}")
    error.response = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return error


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: httpx_error(429), "rate_limit"),  # Mistral, Hugging Face
        (lambda: httpx_error(401), "auth"),
        (lambda: httpx_error(503), "server"),
        (lambda: httpx_error(400, "the prompt is too long"), "context_window"),
        (lambda: httpx_error(422), "bad_request"),
        (lambda: aws_error("ThrottlingException", 400), "rate_limit"),
        (lambda: aws_error("AccessDeniedException", 403), "auth"),
        (lambda: aws_error("ValidationException", 400, "Input is too long for requested model."), "context_window"),
        (lambda: TimeoutError("slow"), "timeout"),
        (lambda: ConnectionResetError("gone"), "connection"),
        (lambda: ContextOverflowError("too long"), "context_window"),
        (lambda: group(httpx_error(429), group(ModelRateLimitError("x"))), "rate_limit"),
        (lambda: group(httpx_error(429), TimeoutError("slow")), "invalid_response"),
        (lambda: ValueError("a defect"), "invalid_response"),
    ],
)  # fmt: skip
def test_a_failure_of_a_langchain_model_has_its_kind(default, make, kind):
    with pytest.raises(NoCandidates) as caught:
        ChatCappy(models=[Failing(responses=[], make=make)], samples=1, scorer=default, max_retries=0).invoke("q")
    assert [failure.kind for failure in caught.value.exceptions] == [kind]


async def test_a_cancelled_call_is_cancelled(loopback, chat, other):
    loopback.replies["c"] = [Reply(delay_s=20)]
    asking = asyncio.create_task(chat(models=[other]).ainvoke("q"))
    await asyncio.sleep(0.3)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("odd", [None, -3, float("nan"), "many", True, 10**30])
def test_odd_figures_of_usage_cost_no_answer(default, odd):
    said = AIMessage(RIGHT)
    said.usage_metadata = {"input_tokens": odd, "output_tokens": odd, "total_tokens": odd}
    message = ChatCappy(models=[FakeMessagesListChatModel(responses=[said])], samples=1, scorer=default).invoke("q")
    assert message.text == RIGHT
    assert 0 < message.usage_metadata["total_tokens"] < 100  # an estimate


def test_usage_in_the_metadata_alone_counts_too(default):
    said = AIMessage(RIGHT, response_metadata={"token_usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    message = ChatCappy(models=[FakeMessagesListChatModel(responses=[said])], samples=2, scorer=default).invoke("q")
    assert message.usage_metadata == {"input_tokens": 14, "output_tokens": 6, "total_tokens": 20}


def test_a_model_that_may_not_stream_is_not_made_to(loopback, chat, other):
    loopback.replies["c"] = [Reply(text=RIGHT)]
    quiet = other.model_copy(update={"disable_streaming": True})
    assert "".join(chunk.text for chunk in chat(models=[quiet]).stream(QUESTION)) == RIGHT
    assert not loopback.requests[0].get("stream")


def test_odd_calls_of_tools_cost_no_answer(loopback, chat):
    """As JSON has no word for a time, and a list is no object."""
    when = AIMessage("", tool_calls=[{"name": "find", "args": {"river": "Nile", "at": time}, "id": "1"}])
    message = chat(models=[FakeMessagesListChatModel(responses=[when])]).invoke("q")
    assert message.tool_calls == when.tool_calls
    loopback.replies["a"] = [call("[1]", "find")]
    with pytest.raises(NoCandidates):
        chat(models=["openai/a"], gates=[lambda candidate: False]).invoke("q")
    assert chat(models=["openai/a"]).invoke("q").invalid_tool_calls[0]["args"] == "[1]"

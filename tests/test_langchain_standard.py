"""LangChain's own tests of chat models, for `ChatCappy`.

The models behind it answer from the request alone, and every third answer is a bad one: so that these tests pass, none
of those may win. Off are the tests of images, audio and PDF, which download their files; see the end for the same.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from answering import OFF_TOPIC, Answering
from langchain_cappy import ChatCappy
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from loopback import serve
from pydantic import BaseModel


@contextmanager
def serving(answering):
    with serve() as running:
        running.gives_n, running.answer = True, answering
        yield running
    assert running.violations == []


@pytest.fixture(scope="module")
def server():
    with serving(Answering(spoil_every=3)) as running:
        yield running


@pytest.fixture(scope="module")
def faultless():
    with serving(Answering()) as running:
        yield running


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self):
        return ChatCappy

    @property
    def chat_model_params(self):
        return {"models": ["openai/a", "openai/b"], "samples": 2, "api_key": "sk-given"}

    @property
    def init_from_env_params(self):
        # Each model given by name reads its own variable when it is called, and a saved key comes back from there.
        return {"OPENAI_API_KEY": "sk-given"}, {"models": ["openai/a"]}, {"api_key": None}

    @pytest.mark.xfail(
        reason="langchain-core loads classes on its own list only: allowed_objects='all', as the test has it, is that "
        "list; with allowed_objects=[ChatCappy] it loads (test_langchain_cappy.py)",
        raises=ValueError,
        strict=True,
    )
    def test_serdes(self, model, snapshot):
        super().test_serdes(model, snapshot)


class TestBestOfFour(ChatModelIntegrationTests):
    models = ("openai/a", "openai/b")
    samples = 2

    @pytest.fixture(autouse=True)
    def _of_this_module(self, server, default):
        self.server, self.scorer = server, default

    @property
    def chat_model_class(self):
        return ChatCappy

    @property
    def chat_model_params(self):
        return {
            "models": list(self.models),
            "samples": self.samples,
            "scorer": self.scorer,
            "api_key": "sk-given",
            "api_base": self.server.base,
        }

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_anthropic_inputs(self):
        return True

    @property
    def supports_model_override(self):
        return False  # which of its models would that be?


class TestBestOfFourByJsonSchema(TestBestOfFour):
    @property
    def structured_output_kwargs(self):
        return {"method": "json_schema"}


class TestOnlyAnswer(TestBestOfFour):
    """Whose pieces pass through."""

    models = ("openai/a",)
    samples = 1

    @pytest.fixture(autouse=True)
    def _of_this_module(self, faultless, default):
        self.server, self.scorer = faultless, default


@pytest.fixture
def chat(server, default):
    options = {"scorer": default, "api_key": "sk-given", "api_base": server.base}
    return ChatCappy(models=["openai/a", "openai/b"], samples=2, **options)


class Order(BaseModel):
    """Order a number of things."""

    thing: str
    number: int


def test_every_third_answer_is_bad_and_none_of_those_wins(server, chat):
    ways = [
        chat.bind_tools([Order]) | (lambda message: message.tool_calls[0]["args"]),
        chat.bind_tools([Order], tool_choice="any") | (lambda message: message.tool_calls[0]["args"]),
        *(
            chat.with_structured_output(Order, method=method) | (lambda order: order.model_dump())
            for method in ("function_calling", "json_schema")
        ),
    ]
    spoiled = server.answer.spoiled
    for way in ways:
        assert [way.invoke("Order 7 'spoons', please.") for _ in range(3)] == [{"thing": "spoons", "number": 7}] * 3
    texts = [chat.invoke("Why do cats sleep so much?").text for _ in range(3)]
    assert all("cats sleep" in text and OFF_TOPIC not in text for text in texts)
    assert server.answer.spoiled - spoiled == 15 * 4 // 3


async def test_usage_handlers_count_what_the_server_billed_once(server, chat):
    before, handler = dict(server.billed), UsageMetadataCallbackHandler()
    asked = {"callbacks": [handler]}
    chat.bind_tools([Order], tool_choice="any").invoke("Order 7 'spoons', please.", asked)
    assert len([chunk async for chunk in chat.astream("Why do cats sleep so much?", asked)]) > 3
    pairs = (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
    counted = [sum(usage[ours] for usage in handler.usage_metadata.values()) for ours, _ in pairs]
    billed = [server.billed[theirs] - before[theirs] for _, theirs in pairs]
    assert counted == billed
    assert min(billed) > 20


IMAGE, AUDIO = "iVBORw0KGgo=", "UklGRg=="
PDF = "data:application/pdf;base64,JVBERi0xLjQ="


@pytest.mark.parametrize(
    ("block", "sent"),
    [
        (
            {"type": "image", "base64": IMAGE, "mime_type": "image/png"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        ),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},  # Anthropic's
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        ),
        (
            {"type": "image", "url": "https://example.org/a.png"},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        ),
        (
            {"type": "audio", "base64": AUDIO, "mime_type": "audio/wav"},
            {"type": "input_audio", "input_audio": {"data": AUDIO, "format": "wav"}},
        ),
        (
            {"type": "file", "base64": "JVBERi0xLjQ=", "mime_type": "application/pdf", "filename": "a.pdf"},
            {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
        ),
        (
            {"type": "file", "file": {"file_data": PDF}},
            {"type": "file", "file": {"file_data": PDF, "filename": "LC_AUTOGENERATED"}},  # the API wants a name
        ),
    ],
)  # fmt: skip
def test_images_audio_and_files_reach_the_models(server, chat, block, sent):
    assert chat.invoke([HumanMessage([{"type": "text", "text": "What do cats do in this?"}, block])]).text
    assert server.requests[-1]["messages"][0]["content"] == [
        {"type": "text", "text": "What do cats do in this?"},
        sent,
    ]

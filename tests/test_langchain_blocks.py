"""Content of every kind: a LangChain model sees the caller's own messages, a model by name what its API takes."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import ClassVar

import pytest
from langchain.agents import create_agent
from langchain_cappy import CappyMiddleware, CappySelector, ChatCappy
from langchain_cappy.messages import as_openai
from langchain_core.messages import AIMessage, ChatMessage, FunctionMessage, HumanMessage, SystemMessage, ToolMessage
from loopback import Reply, answering
from test_langchain_cappy import QUESTION, RIGHT, WRONG, answers
from test_langchain_endings import Saying

from cappy_select import InputError, LiteLLMProvider, NoCandidates, OpenAIProvider
from cappy_select.ask.providers.content import NO_FORM, without_cache_marks

TEXT = {"type": "text", "text": QUESTION}
DATA = base64.b64encode(b"hello").decode()

BLOCKS = [
    "plain",
    {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
    {"type": "text", "text": "a", "annotations": [{"type": "citation", "url": "https://example.org", "title": "t"}]},
    {"type": "text-plain", "text": "A letter.", "mime_type": "text/plain"},
    {"type": "text-plain", "base64": DATA, "mime_type": "text/plain"},
    {"type": "image", "url": "https://example.org/a.png"},
    {"type": "image", "base64": DATA, "mime_type": "image/png"},
    {"type": "image", "base64": DATA},
    {"type": "image", "file_id": "file-1"},
    {"type": "image", "source_type": "base64", "data": DATA, "mime_type": "image/png"},
    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
    {"type": "image", "source": {"type": "file", "file_id": "file-1"}},
    {"type": "image"},
    {"image": {"format": "png", "source": {"bytes": b"hello"}}},
    {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/a.png"}}}},
    {"type": "image_url", "image_url": "https://example.org/a.png"},
    {"type": "audio", "base64": DATA, "mime_type": "audio/mpeg"},
    {"type": "audio", "url": "https://example.org/a.mp3"},
    {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}},
    {"type": "video", "base64": DATA, "mime_type": "video/mp4"},
    {"type": "video", "url": "https://example.org/a.mp4"},
    {"type": "file", "base64": DATA, "mime_type": "application/pdf"},
    {"type": "file", "url": "https://example.org/a.pdf"},
    {"type": "file", "file_id": "file-1"},
    {"type": "file"},
    {"type": "media", "mime_type": "image/png", "data": DATA},
    {"type": "media", "mime_type": "image/png", "data": b"hello"},
    {"type": "media", "mime_type": "application/pdf", "data": DATA},
    {"type": "media", "mime_type": "video/mp4", "file_uri": "gs://b/a.mp4", "video_metadata": {"fps": 1}},
    {"type": "media", "data": DATA},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": DATA}},
    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A letter."}},
    {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "A letter."}]}},
    {"document": {"format": "pdf", "name": "a", "source": {"bytes": b"hello"}}},
    {"type": "guard_content", "guard_content": {"text": {"text": "a"}}},
    {"guardContent": {"text": {"text": "a"}}},
    {"cachePoint": {"type": "default"}},
    {"type": "json", "json": {"a": 1}},
    {"type": "reasoning", "reasoning": "…"},
    {"type": "server_tool_call", "name": "web_search", "args": {}, "id": "1"},
    {"type": "server_tool_result", "tool_call_id": "1", "status": "success", "output": object()},
    {"type": "non_standard", "value": {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}},
    {"type": "non_standard", "value": {"type": "hologram"}},
    {"type": "hologram", "hologram": 3},
    {"no": "type"},
    {},
    {"type": 3, "text": None},
    {"type": "text"},
]


class Seeing(Saying):
    seen: ClassVar[list] = []

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.seen.append(messages)
        return super()._generate(messages, stop, run_manager, **kwargs)

    def bind_tools(self, tools, **kwargs):
        return self


@pytest.fixture
def seeing():
    Seeing.seen.clear()
    return Seeing(said=[AIMessage(RIGHT)])


def history(block):
    thought = AIMessage(
        [{"type": "thinking", "thinking": "…", "signature": "s"}, TEXT, block],
        id="m2", name="aide", tool_calls=[{"name": "find", "args": {"river": "Nile"}, "id": "7"}],
        additional_kwargs={"reasoning_content": "…"}, response_metadata={"service": "x"},
    )  # fmt: skip
    found = ToolMessage([TEXT, block], tool_call_id="7", name="find", artifact=object(), status="error", id="m3")
    return [
        SystemMessage([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]),
        HumanMessage("Hi", name="anna", id="m1"),
        thought,
        found,
        FunctionMessage("found", name="find"),
        ChatMessage("Well?", role="user"),
        HumanMessage([TEXT, block], additional_kwargs={"kept": True}),
    ]


def seen_by(ask, given):
    """The messages that the model saw, without the ids that LangChain makes up for blocks of other forms."""
    Seeing.seen.clear()
    ask(given)
    for message in Seeing.seen[0]:
        for part in message.content:
            if isinstance(part, dict) and str(part.get("id")).startswith("lc_"):
                del part["id"]
    return Seeing.seen[0]


def test_a_langchain_model_sees_what_it_would_without_us(default, seeing):
    chat = ChatCappy(models=[seeing], samples=1, scorer=default)
    race = CappySelector.from_runnables([seeing], scorer=default)
    ways = (chat.invoke, lambda g: list(chat.stream(g)), lambda g: asyncio.run(chat.ainvoke(g)), race.invoke)
    taken = 0
    for block in BLOCKS:
        given = history(block)
        try:
            bare = seen_by(seeing.invoke, given)
        except ValueError:  # LangChain's own, of a block that it knows and finds wanting
            continue
        taken += 1
        for ask in ways:
            assert seen_by(ask, given) == bare, block
    assert taken > 40


def test_an_agents_model_sees_it_too(default, seeing):
    plain = create_agent(seeing, [])
    agent = create_agent(seeing, [], middleware=[CappyMiddleware(samples=2, scorer=default)])
    for block in BLOCKS:
        asked = {"messages": [HumanMessage([TEXT, block], id="m1")]}
        try:
            bare = seen_by(plain.invoke, asked)
        except ValueError:
            continue
        assert seen_by(agent.invoke, asked) == bare, block
        assert len(Seeing.seen) == 2


def test_the_scorer_reads_the_text_and_leaves_the_rest_out(default, seeing):
    read = []
    chat = ChatCappy(
        models=[seeing], samples=1, scorer=default, instruction=lambda messages: read.append(messages) or "q"
    )
    chat.invoke([HumanMessage([{"type": "text-plain", "text": "A letter."}, {"type": "video", "file_id": "1"}, TEXT])])
    assert [part.get("text") for part in read[0][0]["content"]] == ["A letter.", None, QUESTION]


def sent_of(block, **options):
    (message,) = as_openai([HumanMessage([TEXT, block])], **options)
    return message["content"] if isinstance(message["content"], str) else message["content"][1]


PDF, MP4, PNG = (f"data:{kind};base64,{DATA}" for kind in ("application/pdf", "video/mp4", "image/png"))
SITE = "https://x.org/a"
MARK = {"type": "ephemeral"}


def image(url, **more):
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(**value):
    return {"type": "file", "file": value}


def media(kind, data=DATA, **more):
    return {"type": "media", "mime_type": kind, "data": data, **more}


def document(kind, more=None, **source):
    return {"type": "document", "source": {"type": kind, **source}, **(more or {})}


UNNAMED = "LC_AUTOGENERATED"  # LangChain's own name for a file without one


@pytest.mark.parametrize(
    ("block", "sent"),
    [
        ({"type": "text-plain", "text": "A letter.", "title": "T", "context": "C"}, f"{QUESTION}\nT\nC\nA letter."),
        ({"type": "text-plain", "base64": DATA}, f"{QUESTION}\nhello"),
        ({"type": "image", "file_id": "f", "mime_type": "image/png"}, file(file_id="f", format="image/png")),
        ({"type": "image_url", "image_url": SITE}, image(SITE)),
        ({"type": "image", "url": SITE, "extras": {"detail": "low"}}, image(SITE, detail="low")),
        ({"image": {"format": "png", "source": {"bytes": b"hello"}}}, image(PNG)),
        (media("image/png"), image(PNG)),
        (media("image/png", b"hello"), image(PNG)),
        (media("audio/x-wav"), {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}),
        (media("application/pdf"), file(file_data=PDF, filename=UNNAMED)),
        (media("video/mp4", None, file_uri="gs://b/a"), file(file_id="gs://b/a", format="video/mp4")),
        ({"type": "video", "base64": DATA, "mime_type": "video/mp4"}, file(file_data=MP4, filename=UNNAMED)),
        ({"type": "file", "url": SITE}, file(file_id=SITE)),
        ({"type": "file", "source_type": "id", "id": "f"}, file(file_id="f")),
        (
            document("base64", {"title": "a", "cache_control": MARK}, media_type="application/pdf", data=DATA),
            file(file_data=PDF, filename="a") | {"cache_control": MARK},
        ),
        (document("text", data="A letter."), f"{QUESTION}\nA letter."),
        ({"type": "input_file", "file_data": PDF, "filename": "a"}, file(file_data=PDF, filename="a")),
        ({"type": "non_standard", "value": {"type": "guard_content", "text": "a"}}, f"{QUESTION}\na"),
        ({"guardContent": {"text": {"text": "a"}}}, f"{QUESTION}\na"),
        ({"cachePoint": {"type": "default"}}, QUESTION),
    ],
)
def test_a_model_by_name_is_sent_what_litellm_takes(block, sent):
    assert sent_of(block) == sent


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ({"type": "hologram"}, "'hologram' has no form for models given by name"),
        ({"type": "non_standard", "value": {"type": "hologram"}}, "'hologram'"),
        ({"type": "media", "data": DATA}, "`mime_type`"),
        ({"type": "media", "mime_type": "image/png"}, "'media'"),
        ({"type": "file"}, "neither data, nor an address, nor an id"),
        ({"type": "text"}, "'text' is missing"),
        ({"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/a.png"}}}}, "'bytes' is missing"),
    ],
)
def test_what_has_no_form_is_one_error_before_any_call(loopback, chat, block, why):
    with pytest.raises(InputError) as caught:
        chat().invoke([HumanMessage([TEXT, block])])
    assert why in str(caught.value)
    assert "openai/a, openai/b" in str(caught.value)
    assert loopback.requests == []


def test_openais_api_takes_no_file_by_its_address(loopback, chat):
    with pytest.raises(InputError, match="takes no address of a file"):
        chat(models=["openai:a"]).invoke([HumanMessage([TEXT, {"type": "file", "url": "https://x.org/a.pdf"}])])


def test_of_a_mixed_panel_only_the_names_fail_for_what_they_can_not_be_sent(loopback, chat, seeing):
    answers(loopback)
    message = chat(models=["openai/a", "openai:b", seeing]).invoke([HumanMessage([TEXT, {"type": "hologram"}])])
    assert message.content == RIGHT
    failures = message.response_metadata["failures"]
    kinds = [(failure["model"], failure["kind"]) for failure in failures]
    assert kinds == [("openai/a", "bad_request"), ("b", "bad_request")]
    assert all("'hologram' has no form" in failure["message"] for failure in failures)
    assert loopback.requests == []


def test_answers_of_earlier_turns_go_back_as_text_and_calls(loopback, chat):
    answers(loopback)
    said = AIMessage(
        [
            {"type": "reasoning", "reasoning": "…"}, {"type": "text", "text": "Let me "},
            {"type": "server_tool_call", "name": "web_search", "args": {}, "id": "s"},
            {"type": "text", "text": "see.", "annotations": []},
            {"type": "tool_use", "id": "7", "name": "find", "input": {"river": "Nile"}},
        ],
    )  # fmt: skip
    results = [{"type": "tool_result", "tool_use_id": "7", "content": [{"type": "text", "text": "6,650 km"}]}]
    chat().invoke([HumanMessage("Hi"), said, HumanMessage(results), HumanMessage(QUESTION)])
    _, assistant, tool, _ = loopback.requests[0]["messages"]
    assert assistant["content"] == "Let me see."
    assert assistant["tool_calls"][0]["function"] == {"name": "find", "arguments": '{"river": "Nile"}'}
    assert tool == {"role": "tool", "tool_call_id": "7", "content": "6,650 km"}


def test_claude_gets_its_thinking_back_and_nobody_else():
    block = {"type": "thinking", "thinking": "…", "signature": "s"}
    said = AIMessage([block, {"type": "text", "text": "Hi"}])
    assert as_openai([said], thoughts=True) == [{"role": "assistant", "content": "Hi", "thinking_blocks": [block]}]
    assert as_openai([said]) == [{"role": "assistant", "content": "Hi"}]
    unsigned = AIMessage([{"type": "thinking", "thinking": "…"}, {"type": "text", "text": "Hi"}])
    assert as_openai([unsigned], thoughts=True) == [{"role": "assistant", "content": "Hi"}]


def test_cache_marks_reach_a_gateway_and_not_openai_itself(loopback, chat):
    loopback.replies["a"] = [Reply(text=WRONG)]
    marked = [{"type": "text", "text": "A long text.", "cache_control": {"type": "ephemeral"}}]
    for model in ("openai:a", "openai/a"):
        chat(models=[model]).invoke([SystemMessage(marked), HumanMessage(QUESTION)])
        assert loopback.requests[-1]["messages"][0]["content"] == marked
    assert without_cache_marks([{"role": "system", "content": marked, "cache_control": {}}]) == (
        {"role": "system", "content": [{"type": "text", "text": "A long text."}]},
    )


async def test_a_selector_of_names_fails_for_marked_content_too(loopback, provider):
    from cappy_select import Selector

    part = {"type": "hologram", NO_FORM: "no form for a hologram"}
    asked = [{"role": "user", "content": [TEXT, part]}]
    for model in (provider("a"), OpenAIProvider("a", api_base=loopback.base, api_key="k" * 20)):
        with pytest.raises(NoCandidates, match="usable"):
            await Selector([model], samples=1).aselect(asked)
    assert loopback.requests == []


def test_an_answer_of_a_picture_or_of_speech_alone_is_one(default):
    drawn = AIMessage([{"type": "reasoning", "reasoning": "…"}, image(PNG)])
    spoken = AIMessage("", additional_kwargs={"audio": {"id": "1", "data": DATA, "transcript": RIGHT}})
    for said in (drawn, spoken):
        for models in ([Saying(said=[said])], [Saying(said=[said]), Saying(said=[AIMessage("")])]):
            chat = ChatCappy(models=models, samples=1, scorer=default)
            message = chat.invoke(QUESTION)
            assert (message.content, message.additional_kwargs) == (said.content, said.additional_kwargs)
            whole = None
            for chunk in chat.stream(QUESTION):
                whole = chunk if whole is None else whole + chunk
            assert whole.content in (said.content, [])
            assert "stand_in" not in str(whole)
        assert CappySelector.from_runnables([Saying(said=[said])], scorer=default).invoke(QUESTION) == said
    with pytest.raises(NoCandidates):
        ChatCappy(models=[Saying(said=[AIMessage([{"type": "reasoning", "reasoning": "…"}])])], samples=1).invoke("q")


def test_thinking_in_blocks_is_kept_and_not_scored(default):
    blocks = [{"type": "thinking", "thinking": WRONG, "signature": "s"}, {"type": "reasoning", "reasoning": WRONG}]
    thought = AIMessage([*blocks, {"type": "text", "text": RIGHT}], additional_kwargs={"reasoning_content": WRONG})
    message = ChatCappy(models=[Saying(said=[thought])], samples=1, scorer=default).invoke(QUESTION)
    assert (message.content, message.additional_kwargs) == (thought.content, thought.additional_kwargs)
    bare = ChatCappy(models=[Saying(said=[AIMessage(RIGHT)])], samples=1, scorer=default).invoke(QUESTION)
    assert message.response_metadata["score"] == bare.response_metadata["score"]


@pytest.fixture
def claude(default):
    """A chat model that is Claude by name, and what its server was sent."""
    said = {
        "id": "m", "type": "message", "role": "assistant", "model": "c", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "An answer."}], "usage": {"input_tokens": 5, "output_tokens": 3},
    }  # fmt: skip
    with answering(json.dumps(said).encode()) as (host, sent):
        model = LiteLLMProvider("anthropic/claude-haiku-4-5", api_base=host, api_key="sk-secret-1234")
        yield ChatCappy(models=[model], samples=1, scorer=default, max_retries=0), sent


@pytest.mark.parametrize(
    ("block", "sent"),
    [
        ({"type": "file", "url": SITE, "mime_type": "application/pdf"}, {"type": "url", "url": SITE}),
        (document("url", url=SITE), {"type": "url", "url": SITE}),
        ({"type": "text-plain", "url": SITE, "mime_type": "text/plain"}, {"type": "url", "url": SITE}),
        ({"type": "file", "file_id": "file-1", "mime_type": "application/pdf"}, {"type": "file", "file_id": "file-1"}),
    ],
)
def test_claude_by_name_gets_an_address_as_one_and_an_id_as_one(claude, block, sent):
    chat, requests = claude
    chat.invoke([HumanMessage([TEXT, block])])
    _, part = requests[-1]["messages"][-1]["content"]
    assert part["source"] == sent


@pytest.mark.parametrize(
    "block",
    [
        {"type": "audio", "base64": DATA, "mime_type": "audio/wav"},
        {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}},
        {"type": "video_url", "video_url": {"url": SITE}},
        {"type": "video", "base64": DATA, "mime_type": "video/mp4"},
    ],
)
def test_claude_by_name_is_not_asked_about_what_it_would_not_be_sent(claude, block):
    chat, requests = claude
    with pytest.raises(NoCandidates) as caught:
        chat.invoke([HumanMessage([TEXT, block])])
    assert caught.value.exceptions[0].kind == "bad_request"
    assert not requests

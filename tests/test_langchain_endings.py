"""How the answers of LangChain's partner packages end, by the metadata that each of them writes."""

from __future__ import annotations

import enum

import pytest
from langchain_cappy import ChatCappy
from langchain_cappy.endings import finish_reason_of
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from cappy_select import NoCandidates
from cappy_select.ask.finish_reasons import meaning_of

QUESTION = "Which river flows through Iquitos?"
HALF, WHOLE = "The Amazon flows through Iquitos, and it", "I would rather not say."


class Saying(BaseChatModel):
    """Says these messages' chunks, or the one message."""

    said: list[AIMessage]
    info: dict | None = None

    @property
    def _llm_type(self):
        return "saying"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=self.said[0], generation_info=self.info)])


class SayingInPieces(Saying):
    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for message in self.said:
            yield ChatGenerationChunk(message=message)


class Reason(enum.Enum):
    STOP = 1
    MAX_TOKENS = 2


ENDINGS = {
    "openai": ({"finish_reason": "stop"}, "complete"),
    "openai, a tool": ({"finish_reason": "tool_calls"}, "tool_calls"),
    "openai, cut": ({"finish_reason": "length"}, "cut_off"),
    "openai, filtered": ({"finish_reason": "content_filter"}, "refused"),
    "responses": ({"status": "completed", "incomplete_details": None}, "complete"),
    "responses, cut": (
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        "cut_off",
    ),
    "responses, filtered": ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "refused"),
    "responses, a new reason": ({"status": "incomplete", "incomplete_details": {"reason": "bored"}}, "cut_off"),
    "responses, failed": ({"status": "failed"}, "failed"),
    "anthropic": ({"stop_reason": "end_turn", "stop_sequence": None}, "complete"),
    "anthropic, cut": ({"stop_reason": "max_tokens"}, "cut_off"),
    "anthropic, refused": ({"stop_reason": "refusal", "stop_details": {"type": "refusal"}}, "refused"),
    "google": ({"finish_reason": "STOP", "safety_ratings": [], "prompt_feedback": {"block_reason": 0}}, "complete"),
    "google, cut": ({"finish_reason": "MAX_TOKENS"}, "cut_off"),
    "google, an enumeration": ({"finish_reason": Reason.MAX_TOKENS}, "cut_off"),
    "google, recited": ({"finish_reason": "RECITATION", "safety_ratings": []}, "refused"),
    "google, its prompt blocked": ({"prompt_feedback": {"block_reason": "OTHER"}}, "refused"),
    "google, blocked by a number": ({"prompt_feedback": {"block_reason": 3}}, "refused"),
    "vertex, blocked": ({"is_blocked": True, "finish_reason": "STOP"}, "refused"),
    "vertex, not blocked": (
        {"is_blocked": False, "finish_reason": "STOP", "safety_ratings": [{"blocked": False}]},
        "complete",
    ),
    "vertex, a rating": ({"finish_reason": "STOP", "safety_ratings": [{"blocked": True}]}, "refused"),
    "bedrock": ({"stopReason": "end_turn", "metrics": {"latencyMs": [9]}}, "complete"),
    "bedrock, cut": ({"stopReason": "max_tokens"}, "cut_off"),
    "bedrock, guarded": ({"stopReason": "guardrail_intervened"}, "refused"),
    "bedrock's invoke, guarded": (
        {"stop_reason": "end_turn", "amazon-bedrock-guardrailAction": "INTERVENED"},
        "refused",
    ),
    "ollama": ({"done": True, "done_reason": "stop"}, "complete"),
    "ollama, cut": ({"done": True, "done_reason": "length"}, "cut_off"),
    "cohere": ({"finish_reason": "COMPLETE"}, "complete"),
    "cohere, cut": ({"finish_reason": "MAX_TOKENS"}, "cut_off"),
    "cohere, toxic": ({"finish_reason": "ERROR_TOXIC"}, "refused"),
    "mistral, cut": ({"finish_reason": "model_length"}, "cut_off"),
    "together": ({"finish_reason": "eos"}, "complete"),
    "watsonx, cut": ({"finish_reason": "token_limit"}, "cut_off"),
    "deepseek, out of resources": ({"finish_reason": "insufficient_system_resource"}, "failed"),
    "openrouter, cut": ({"finish_reason": "stop", "native_finish_reason": "MAX_TOKENS"}, "cut_off"),
    "a status of HTTP": ({"status": 200, "finish_reason": "stop"}, "complete"),
    "a word of tomorrow": ({"finish_reason": "enlightened"}, "unknown"),
    "nothing": ({}, "unknown"),
    # merged chunks
    "google, in pieces": ({"finish_reason": "STOPSTOP"}, "complete"),
    "google, in pieces, cut": ({"finish_reason": "STOPMAX_TOKENS"}, "cut_off"),
    "vertex, in pieces": ({"finish_reason": "FINISH_REASON_UNSPECIFIEDFINISH_REASON_UNSPECIFIEDSTOP"}, "complete"),
    "anthropic, in pieces": ({"stop_reason": "end_turnend_turn"}, "complete"),
    "openai, in pieces, cut": ({"finish_reason": "lengthlength"}, "cut_off"),
    "responses, in pieces": ({"status": "in_progresscompleted"}, "complete"),
    "a list of them": ({"finish_reason": ["stop", "length"]}, "cut_off"),
    "words of tomorrow": ({"finish_reason": "stopenlightened"}, "unknown"),
}


@pytest.mark.parametrize(("metadata", "meaning"), ENDINGS.values(), ids=ENDINGS)
def test_each_packages_metadata_says_how_an_answer_ended(metadata, meaning):
    assert meaning_of(finish_reason_of(AIMessage("Hello", response_metadata=metadata))) == meaning


def test_the_vendors_own_word_is_kept():
    for metadata, word in (
        ({"finish_reason": "MAX_TOKENS"}, "MAX_TOKENS"),
        ({"stopReason": "end_turn"}, "end_turn"),
        ({"finish_reason": "enlightened"}, "enlightened"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens"),
        ({}, None),
    ):
        assert finish_reason_of(AIMessage("Hello", response_metadata=metadata)) == word


REFUSALS = {
    "a key of the message": AIMessage(HALF, additional_kwargs={"refusal": "I can't help with that"}),
    "a block": AIMessage([{"type": "text", "text": HALF}, {"type": "refusal", "refusal": "I can't help with that"}]),
    "a block without words": AIMessage([{"type": "text", "text": HALF}, {"type": "refusal"}]),
}


@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_does_not_win(default, refused):
    models = [Saying(said=[refused]), Saying(said=[AIMessage(WHOLE)])]
    message = ChatCappy(models=models, samples=1, scorer=default).invoke(QUESTION)
    assert message.content == WHOLE
    assert message.response_metadata["candidates"][1]["rejected"].startswith("refused: ")


def test_a_half_answer_does_not_win_whoever_cut_it(default):
    for metadata, meaning in ENDINGS.values():
        models = [Saying(said=[AIMessage(HALF, response_metadata=metadata)]), Saying(said=[AIMessage(WHOLE)])]
        won = ChatCappy(models=models, samples=1, scorer=default).invoke(QUESTION).content
        assert won == (HALF if meaning in ("complete", "tool_calls", "unknown") else WHOLE), metadata


def test_what_stands_in_the_generation_counts_too(default):
    models = [Saying(said=[AIMessage(HALF)], info={"finish_reason": "MAX_TOKENS"}), Saying(said=[AIMessage(WHOLE)])]
    assert ChatCappy(models=models, samples=1, scorer=default).invoke(QUESTION).content == WHOLE


def test_the_reason_of_a_streamed_answer_is_that_of_its_pieces(default):
    pieces = [
        AIMessageChunk(content="The Amazon ", response_metadata={"finish_reason": "STOP", "safety_ratings": []}),
        AIMessageChunk(content="flows", response_metadata={"finish_reason": "MAX_TOKENS", "safety_ratings": []}),
    ]
    with pytest.raises(NoCandidates) as caught:
        list(ChatCappy(models=[SayingInPieces(said=pieces)], samples=1, scorer=default).stream(QUESTION))
    assert "cut off: max_tokens" in str(caught.value)
    pieces[1] = AIMessageChunk(content="flows", response_metadata={"finish_reason": "STOP"})
    chunks = list(ChatCappy(models=[SayingInPieces(said=pieces)], samples=1, scorer=default).stream(QUESTION))
    assert "".join(chunk.text for chunk in chunks) == "The Amazon flows"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "slow down"}, "rate_limit"),
        ({"message": "the model is overloaded", "type": "overloaded_error"}, "server"),
        ("the upstream server is unavailable", "server"),
    ],
)
def test_an_error_in_an_answers_metadata_is_a_failure_of_its_kind(default, error, kind):
    failing = Saying(said=[AIMessage(HALF, response_metadata={"finish_reason": "stop", "error": error})])
    models = [failing, Saying(said=[AIMessage(WHOLE)])]
    message = ChatCappy(models=models, samples=1, scorer=default, max_retries=0).invoke(QUESTION)
    assert message.content == WHOLE
    assert [failure["kind"] for failure in message.response_metadata["failures"]] == [kind]


def test_an_error_of_nothing_is_none(default):
    for nothing in (None, {}, {"code": None, "message": ""}, ""):
        said = AIMessage(HALF, response_metadata={"finish_reason": "stop", "error": nothing})
        assert ChatCappy(models=[Saying(said=[said])], samples=1, scorer=default).invoke(QUESTION).content == HALF

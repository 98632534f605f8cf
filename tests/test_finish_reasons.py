"""What each vendor's word for the end of an answer means: a row a word."""

from __future__ import annotations

import pytest

from cappy_select import Candidate, Request
from cappy_select.ask.complete import Complete
from cappy_select.ask.finish_reasons import FINISH_REASONS, _key, graver, meaning_of

ROWS = {
    "OpenAI, Azure": {
        "stop": "complete",
        "length": "cut_off",
        "tool_calls": "tool_calls",
        "function_call": "tool_calls",
        "content_filter": "refused",
    },
    "OpenAI's Responses API: status and incomplete_details.reason": {
        "completed": "complete",
        "incomplete": "cut_off",
        "max_output_tokens": "cut_off",
        "max_completion_tokens": "cut_off",
        "max_messages": "cut_off",
        "steered": "cut_off",
        "content_policy_violation": "refused",
        "failed": "failed",
        "cancelled": "failed",
        "canceled": "failed",
        "in_progress": "failed",
        "queued": "failed",
        "expired": "failed",
        "server_error": "failed",
        "rate_limit_exceeded": "failed",
    },
    "Anthropic": {
        "end_turn": "complete",
        "stop_sequence": "complete",
        "tool_use": "tool_calls",
        "max_tokens": "cut_off",
        "pause_turn": "cut_off",
        "compaction": "cut_off",
        "model_context_window_exceeded": "cut_off",
        "refusal": "refused",
    },
    "Gemini, Vertex AI": {
        "STOP": "complete",
        "MAX_TOKENS": "cut_off",
        "CONTINUATION": "cut_off",
        "SAFETY": "refused",
        "RECITATION": "refused",
        "LANGUAGE": "refused",
        "OTHER": "refused",
        "BLOCKLIST": "refused",
        "PROHIBITED_CONTENT": "refused",
        "SPII": "refused",
        "IMAGE_SAFETY": "refused",
        "IMAGE_PROHIBITED_CONTENT": "refused",
        "IMAGE_RECITATION": "refused",
        "IMAGE_OTHER": "refused",
        "ESCALATION": "refused",
        "MALFORMED_FUNCTION_CALL": "failed",
        "MALFORMED_RESPONSE": "failed",
        "UNEXPECTED_TOOL_CALL": "failed",
        "TOO_MANY_TOOL_CALLS": "failed",
        "MISSING_THOUGHT_SIGNATURE": "failed",
        "NO_IMAGE": "failed",
        "FINISH_REASON_UNSPECIFIED": "unknown",
        "BLOCK_REASON_UNSPECIFIED": "refused",
        "BLOCKED_REASON_UNSPECIFIED": "refused",
        "MODEL_ARMOR": "refused",
        "JAILBREAK": "refused",
    },
    "Bedrock": {
        "guardrail_intervened": "refused",
        "content_filtered": "refused",
        "INTERVENED": "refused",
        "malformed_model_output": "failed",
        "malformed_tool_use": "failed",
        "FINISH": "complete",
        "FINISHED": "complete",
        "STOP_CRITERIA_MET": "complete",
    },
    "Cohere": {
        "COMPLETE": "complete",
        "STOP_SEQUENCE": "complete",
        "TOOL_CALL": "tool_calls",
        "ERROR_LIMIT": "cut_off",
        "MAX_LENGTH": "cut_off",
        "ERROR_TOXIC": "refused",
        "ERROR": "failed",
        "USER_CANCEL": "failed",
        "TIMEOUT": "failed",
    },
    "Mistral": {"model_length": "cut_off", "error": "failed"},
    "OpenRouter": {
        "error": "failed",
        "context_length_exceeded": "cut_off",
        "provider_error": "failed",
        "upstream_error": "failed",
        "internal_error": "failed",
    },
    "vLLM, SGLang": {"abort": "failed", "repetition": "cut_off"},
    "llama.cpp": {"eos": "complete", "word": "complete", "limit": "cut_off", "truncated": "cut_off", "none": "unknown"},
    "Ollama": {"load": "failed", "unload": "failed"},
    "LM Studio": {
        "eosFound": "complete",
        "stopStringFound": "complete",
        "maxPredictedTokensReached": "cut_off",
        "contextLengthReached": "cut_off",
        "userStopped": "failed",
        "modelUnloaded": "failed",
    },
    "Yandex": {
        "ALTERNATIVE_STATUS_FINAL": "complete",
        "ALTERNATIVE_STATUS_TOOL_CALLS": "tool_calls",
        "ALTERNATIVE_STATUS_TRUNCATED_FINAL": "cut_off",
        "ALTERNATIVE_STATUS_PARTIAL": "cut_off",
        "ALTERNATIVE_STATUS_CONTENT_FILTER": "refused",
    },
    "GigaChat": {"blacklist": "refused"},
    "Aleph Alpha": {"maximum_tokens": "cut_off"},
    "Reka": {"context": "cut_off"},
    "Azure AI Inference": {"TokenLimitReached": "cut_off", "TOKEN_LIMIT_REACHED": "cut_off"},
    "Text Generation Inference": {"max_new_tokens": "cut_off"},
    "Amazon Titan, knowledge bases": {"RAG_QUERY_WHEN_RAG_DISABLED": "failed"},
    "Hugging Face TGI, Together, AI21": {
        "eos_token": "complete",
        "stop_token": "complete",
        "endoftext": "complete",
        "end_of_text": "complete",
    },
    "Watsonx": {
        "token_limit": "cut_off",
        "time_limit": "cut_off",
        "not_finished": "cut_off",
        "moderation": "refused",
    },
    "xAI": {
        "REASON_STOP": "complete",
        "REASON_MAX_LEN": "cut_off",
        "REASON_MAX_CONTEXT": "cut_off",
        "REASON_TIME_LIMIT": "cut_off",
        "REASON_TOOL_CALLS": "tool_calls",
        "REASON_INVALID": "failed",
        "max_len": "cut_off",
        "max_context": "cut_off",
        "invalid": "failed",
    },
    "DeepSeek": {"insufficient_system_resource": "failed"},
    "Zhipu": {"sensitive": "refused", "network_error": "failed"},
    "Replicate": {
        "succeeded": "complete",
        "aborted": "failed",
        "interrupted": "failed",
        "starting": "failed",
        "processing": "failed",
    },
    "others": {"normal": "complete", "max_output": "cut_off", "blocked": "refused"},
}

ASKED = Request(messages=({"role": "user", "content": "q"},))
EACH = [(vendor, word, meaning) for vendor, words in ROWS.items() for word, meaning in words.items()]


@pytest.mark.parametrize(("vendor", "word", "meaning"), EACH)
def test_each_vendors_word_means_what_its_documentation_says(vendor: str, word: str, meaning: str) -> None:
    assert meaning_of(word) == meaning
    said = Complete().reason(_answer(word), ASKED)
    begins = {"cut_off": "cut off", "refused": "refused: ", "failed": "failed: "}.get(meaning)
    assert said is None if begins is None else said and said.startswith(begins) and word in said
    accepting = Complete(accept_cut_off=True).reason(_answer(word), ASKED)
    assert (accepting is None) == (meaning not in ("refused", "failed"))


def test_no_word_of_the_table_is_without_a_row_here() -> None:
    tried = {_key(word) for _, word, _ in EACH}
    assert set(map(_key, FINISH_REASONS)) <= tried


@pytest.mark.parametrize(
    "spelling",
    [
        "MAX_TOKENS",
        "Max_Tokens",
        " max_tokens\n",
        "max-tokens",
        "maxTokens",
        "max tokens",
        "FinishReason.MAX_TOKENS",
        "<FinishReason.MAX_TOKENS: 2>",
        "FINISH_REASON_MAX_TOKENS",
        "StopReason.max_tokens",
        "Candidate.FinishReason.MAX_TOKENS",
        "max_tokens: 500 reached",
    ],
)
def test_a_word_is_known_in_every_spelling(spelling: str) -> None:
    assert meaning_of(spelling) == "cut_off"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("content_filter: RECITATION", "refused"),
        ("content_filter:stop", "refused"),
        ("error (upstream went away)", "failed"),
        ("stop, as asked", "complete"),
    ],
)
def test_the_first_word_counts(text: str, meaning: str) -> None:
    assert meaning_of(text) == meaning


@pytest.mark.parametrize("word", [None, "", "  ", "null", "a word of tomorrow", "reason", "停止", "...", "<"])
def test_an_unknown_word_speaks_against_no_answer(word: str | None) -> None:
    assert meaning_of(word) == "unknown"
    assert Complete().reason(_answer(word), ASKED) is None


def test_of_two_reasons_the_graver_one_is_kept() -> None:
    assert graver("stop", "SAFETY") == "SAFETY"
    assert graver("length", "MAX_TOKENS") == "length"  # they say the same
    assert graver("stop", "end_turn") == "stop"
    assert graver("error", "stop") == "error"
    assert graver("stop", None) == "stop"
    assert graver(None, "error") == "error"
    assert graver("stop", "a word of tomorrow") == "stop"


def _answer(reason: str | None) -> Candidate:
    return Candidate(model="m", message={"role": "assistant", "content": "An answer."}, finish_reason=reason)

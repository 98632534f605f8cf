"""What vendors call the ways in which an answer ends, in one table: which of them say that it is whole.

A word is compared without its case, its separators and the name of its enumeration: `MAX_TOKENS`, `maxTokens`,
`FinishReason.MAX_TOKENS` and `FINISH_REASON_MAX_TOKENS` are one word. Of a longer text (`content_filter: RECITATION`)
the first word counts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

Meaning = Literal["complete", "tool_calls", "cut_off", "refused", "failed", "unknown"]
"""`complete` and `tool_calls`: the answer is whole. `cut_off`: a limit ended it. `refused`: the model or a filter would
not give it. `failed`: something broke, or somebody stopped it. `unknown`: no word of the table; nothing speaks against
the answer."""

# By vendor, for the reader: a word that several use stands where it came from first.
_WORDS: dict[Meaning, tuple[str, ...]] = {
    "complete": (
        *("stop", "completed"),  # OpenAI, Azure; the Responses API's status
        *("end_turn", "stop_sequence"),  # Anthropic, Bedrock, xAI
        "complete",  # Cohere
        *("eos", "eos_token", "stop_token", "endoftext"),  # Hugging Face, Together, Watsonx, AI21
        "word",  # llama.cpp's stop string
        *("finish", "finished", "stop_criteria_met"),  # Amazon Titan, Writer
        *("succeeded", "normal"),  # Replicate; Baidu
        "end_of_text",
        *("eos_found", "stop_string_found"),  # LM Studio
        "alternative_status_final",  # Yandex
    ),
    "tool_calls": (
        *("tool_calls", "function_call"),  # OpenAI, Mistral, Groq, DeepSeek, Fireworks
        "tool_use",  # Anthropic, Bedrock
        "tool_call",  # Cohere
        "alternative_status_tool_calls",  # Yandex
    ),
    "cut_off": (
        *("length", "max_output_tokens", "max_completion_tokens", "max_messages", "incomplete", "steered"),  # OpenAI
        *("max_tokens", "pause_turn", "compaction", "model_context_window_exceeded"),  # Anthropic, Bedrock
        "continuation",  # Gemini
        *("error_limit", "max_length"),  # Cohere
        *("model_length", "context_length_exceeded"),  # Mistral; OpenRouter's native ones
        *("limit", "truncated"),  # llama.cpp
        *("token_limit", "time_limit", "not_finished"),  # Watsonx
        *("max_len", "max_context"),  # xAI's REASON_MAX_LEN, REASON_MAX_CONTEXT
        "max_output",  # MiniMax
        *("maximum_tokens", "context", "max_new_tokens"),  # Aleph Alpha; Reka; Hugging Face's own parameter
        "token_limit_reached",  # Azure's inference client
        *("max_predicted_tokens_reached", "context_length_reached"),  # LM Studio
        *("alternative_status_truncated_final", "alternative_status_partial"),  # Yandex
        "repetition",  # vLLM stops an answer that repeats itself
    ),
    "refused": (
        *("content_filter", "content_policy_violation"),  # OpenAI, Azure, DeepSeek, Mistral
        "refusal",  # Anthropic, OpenAI
        *("safety", "recitation", "language", "other", "blocklist", "prohibited_content", "spii"),  # Gemini, Vertex
        *("image_safety", "image_prohibited_content", "image_recitation", "image_other", "escalation"),
        *("block_reason_unspecified", "blocked_reason_unspecified", "model_armor", "jailbreak", "blocked"),
        *("guardrail_intervened", "content_filtered", "intervened"),  # Bedrock
        "error_toxic",  # Cohere
        "sensitive",  # Zhipu
        "blacklist",  # GigaChat
        "alternative_status_content_filter",  # Yandex
        "moderation",  # Watsonx
    ),
    "failed": (
        *("error", "failed", "cancelled", "canceled", "in_progress", "queued", "expired"),  # OpenRouter; Responses API
        *("abort", "aborted", "interrupted"),  # vLLM, SGLang, Replicate
        *("malformed_function_call", "malformed_response", "unexpected_tool_call", "too_many_tool_calls"),  # Gemini
        *("missing_thought_signature", "no_image"),
        *("malformed_model_output", "malformed_tool_use"),  # Bedrock
        *("user_cancel", "timeout"),  # Cohere
        "insufficient_system_resource",  # DeepSeek
        "network_error",  # Zhipu
        *("load", "unload"),  # Ollama: the model came or went, and nothing was written
        *("server_error", "internal_error", "provider_error", "upstream_error", "rate_limit_exceeded"),
        *("starting", "processing"),  # Replicate
        *("user_stopped", "model_unloaded"),  # LM Studio
        "rag_query_when_rag_disabled",  # Amazon Titan
        "invalid",  # xAI's REASON_INVALID
    ),
}

_GRAVITY: dict[Meaning, int] = {"unknown": 0, "complete": 1, "tool_calls": 1, "cut_off": 2, "refused": 3, "failed": 4}
_ENUMERATIONS = re.compile(r"^(?:finish|stop|block(?:ed)?|done)?reason(?=.)")


def _key(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


FINISH_REASONS = MappingProxyType({word: meaning for meaning, words in _WORDS.items() for word in words})
"""Every word that is known, as its vendor's documentation has it, in lower case, and what it means."""

_BY_KEY = {_key(word): meaning for word, meaning in FINISH_REASONS.items()}


@lru_cache(256)  # few words, many answers
def meaning_of(reason: str | None) -> Meaning:
    """What a vendor's finish reason says of the answer; `unknown` for None and for a word that is not in the table.

    Args:
        reason: As the vendor sends it, in any case and with any separators; of a longer text the first word counts.

    Returns:
        `complete`, `tool_calls`, `cut_off`, `refused`, `failed` or `unknown`.
    """
    text = "" if reason is None else str(reason).strip().lstrip("<")
    if known := _known(text):
        return known
    first = re.split(r"[\s:;,(]", text, maxsplit=1)[0]
    return _known(first) or "unknown"


def graver(first: str | None, second: str | None) -> str | None:
    """Of two finish reasons of one answer (a gateway's, its provider's) the one that says more against it.

    Args:
        first, second: As the vendors send them; None for none.

    Returns:
        One of the two; the first when both say the same.
    """
    return second if _gravity(second) > _gravity(first) else first


def _gravity(reason: str | None) -> int:
    return _GRAVITY[meaning_of(reason)]


def _known(text: str) -> Meaning | None:
    key = _key(text.rpartition(".")[2] or text)
    return _BY_KEY.get(key) or _BY_KEY.get(_ENUMERATIONS.sub("", key))

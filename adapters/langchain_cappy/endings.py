"""How a LangChain model's answer ended, in whichever words its partner package keeps them.

Each package writes its vendor's reply into `response_metadata` under names of its own, and merged chunks of a stream
have their texts strung together (`STOPSTOP`). Of several words the one that says most against the answer counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache, reduce
from typing import Any

from langchain_core.messages import AIMessage

from cappy_select.ask import (
    FINISH_REASONS,
    graver,
    meaning_of,
)

_WORDS = (
    *(
        "finish_reason",
        "finishReason",
        "native_finish_reason",
    ),  # OpenAI and its like, Gemini, Cohere, OpenRouter
    *("stop_reason", "stopReason", "done_reason", "completion_reason", "completionReason"),  # Anthropic, AWS, Ollama
)
_SAY_NOTHING = re.compile(r"(?:(?:finish|block|blocked|stop)reason)?unspecified|none|null")
_LONGEST = 1000  # characters of a strung-together reason that are read


def finish_reason_of(message: AIMessage) -> str | None:
    """The vendor's word for how the answer ended; None when there is none."""
    return reduce(_graver, _said(message), None)


def _graver(first: str | None, second: str) -> str | None:
    return second if first is None else graver(first, second)


def refusal_of(message: AIMessage) -> str | None:
    """What the model said instead of an answer, where its form keeps that apart."""
    if refusal := message.additional_kwargs.get("refusal"):
        return str(refusal)
    for block in message.content if isinstance(message.content, list) else ():
        if isinstance(block, dict) and block.get("type") == "refusal":
            return str(block.get("refusal") or "no reason was given")
    return None


def error_of(message: AIMessage) -> Any:
    """The error that stands in an answer's metadata; None when there is none."""
    for place in (message.response_metadata, message.additional_kwargs):
        error = place.get("error")
        if isinstance(error, Mapping) and not any(error.values()):
            continue
        if error:
            return error
    return None


def _said(message: AIMessage) -> Iterator[str]:
    """The words, the most telling place first: of equal ones that is kept."""
    said = message.response_metadata
    if refusal_of(message):
        yield "refusal"
    if error_of(message):
        yield "error"
    details = said.get("incomplete_details")  # the Responses API
    for value in (details.get("reason") if isinstance(details, Mapping) else None, *(said.get(w) for w in _WORDS)):
        yield from _words(value)
    ends = [word for word in _words(said.get("status")) if meaning_of(word) != "unknown"]
    yield from ends[-1:]  # of a stream's the last; other packages may have a status of HTTP there
    feedback = said.get("prompt_feedback") or said.get("promptFeedback")  # Gemini
    if isinstance(feedback, Mapping):
        reason = feedback.get("block_reason") or feedback.get("blockReason")
        yield from (word if meaning_of(word) == "refused" else f"blocked: {word}" for word in _words(reason))
    ratings = said.get("safety_ratings")
    rated = [rating for rating in ratings if isinstance(rating, Mapping)] if isinstance(ratings, list) else []
    if said.get("is_blocked") is True or any(rating.get("blocked") is True for rating in rated):  # Vertex
        yield "blocked"
    if str(said.get("amazon-bedrock-guardrailAction")).upper().startswith("INTERVENED"):
        yield "guardrail_intervened"


def _words(value: Any) -> Iterator[str]:
    """The words in a value: a text, an enumeration's member, a list of them; numbers that no table has stay numbers."""
    if value is None or isinstance(value, bool) or value in (0, "", "0"):
        return
    if isinstance(value, Mapping):
        yield from _words(value.get("reason") or value.get("type"))
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _words(item)
    else:
        text = value if isinstance(value, str) else str(getattr(value, "name", None) or getattr(value, "value", value))
        yield from _apart(text[:_LONGEST])


def _apart(text: str) -> list[str]:
    """Words that a stream strung together, of which none is unknown; else the text as it is."""
    if meaning_of(text) != "unknown" or not text.strip():
        return [text] if text.strip() else []
    key = re.sub(r"[^a-z0-9]", "", text.lower())
    found = _segments(key)
    if found is None:
        return [text]
    return list(dict.fromkeys(found))


@lru_cache(512)
def _segments(key: str) -> tuple[str, ...] | None:
    """Known words that make up `key`, the longest first; None where something is left over."""
    known = _known()
    # ends[place]: the words of key[:place]
    ends: list[tuple[str, ...] | None] = [(), *([None] * len(key))]
    for begin in range(len(key)):
        so_far = ends[begin]
        if so_far is None:
            continue
        nothing = _SAY_NOTHING.match(key, begin)
        if nothing is not None and ends[nothing.end()] is None:
            ends[nothing.end()] = so_far
        for word, spelt in known.items():
            end = begin + len(word)
            if key.startswith(word, begin) and (ends[end] is None or len(ends[end] or ()) > len(so_far) + 1):
                ends[end] = (*so_far, spelt)
    return ends[-1]


@lru_cache(1)
def _known() -> dict[str, str]:
    return {re.sub(r"[^a-z0-9]", "", word): word for word in FINISH_REASONS}

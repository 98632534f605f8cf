"""What a server answered, before LiteLLM read it: in LiteLLM's own words half an answer is often a whole one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

# Where vendors list their answers, and what in one of them says why it ended.
_LISTS = {
    "choices": ("finish_reason",),  # OpenAI's format
    "candidates": ("finishReason",),  # Gemini, Vertex AI
    "results": ("stop_reason", "completionReason"),  # Watsonx; Amazon Titan
    "generations": ("finish_reason",),  # Cohere on Bedrock
    "outputs": ("stop_reason",),  # Mistral on Bedrock
}
_ALONE = ("stop_reason", "stopReason", "finish_reason", "done_reason")  # Anthropic, Bedrock Converse, Cohere, Ollama


class Received:
    """One call's response as it came. LiteLLM calls it with what it logs (its parameter `logger_fn`)."""

    def __init__(self) -> None:
        self._original: Any = None

    def __call__(self, details: Mapping[str, Any]) -> None:
        """Note the response, when there is one."""
        if details.get("log_event_type") == "post_api_call":
            self._original = details.get("original_response")

    @property
    def is_there(self) -> bool:
        """Whether a response came, with a status that says that it is one."""
        return self._original is not None

    def body(self) -> Any:
        """The JSON of the response; None where it is none."""
        value = self._original
        if hasattr(value, "model_dump"):
            return value.model_dump(mode="json")
        if not isinstance(value, str | bytes):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return None

    def ends(self) -> list[str]:
        """Why each answer ended, in its vendor's own words, as far as it says so."""
        body = self.body()
        if isinstance(body, list):  # Hugging Face's inference servers
            return [str(_inner(item, "details").get("finish_reason") or "") for item in body]
        return list(_ends(body)) if isinstance(body, Mapping) else []


def _ends(body: Mapping[str, Any]) -> Iterator[str]:
    for name, words in _LISTS.items():
        if isinstance(answers := body.get(name), list) and answers:
            for answer in answers:
                said = [answer.get(word) for word in words] if isinstance(answer, Mapping) else []
                yield next((str(word) for word in said if word), "")
            return
    if blocked := _inner(body, "promptFeedback").get("blockReason"):
        yield str(blocked)
    elif body.get("object") == "response":  # OpenAI's Responses API
        yield str(_inner(body, "incomplete_details").get("reason") or body.get("status") or "")
    else:
        yield next((str(body[word]) for word in _ALONE if body.get(word)), "")


def _inner(value: Any, name: str) -> Mapping[str, Any]:
    inner = value.get(name) if isinstance(value, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}

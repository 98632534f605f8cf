"""What a server answered, before LiteLLM read it: in LiteLLM's own words half an answer is often a whole one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

from cappy_select.ask.finish_reasons import graver, meaning_of
from cappy_select.ask.providers.failures import error_in
from cappy_select.ask.providers.transport import Body

# Where vendors list their answers, and what in one of them says why it ended.
_LISTS = {
    "choices": ("finish_reason",),  # OpenAI's format
    "candidates": ("finishReason",),  # Gemini, Vertex AI
    "results": ("stop_reason", "completionReason"),  # Watsonx; Amazon Titan
    "generations": ("finish_reason",),  # Cohere on Bedrock
    "outputs": ("stop_reason",),  # Mistral on Bedrock
}
# Anthropic, Bedrock Converse, Cohere, Ollama, llama.cpp
_ALONE = ("stop_reason", "stopReason", "finish_reason", "done_reason", "stop_type")


class Received:
    """One call's response as it came.

    `raw` is what our HTTP clients read. LiteLLM asks some vendors with clients of its own (Bedrock's signed calls, a
    session of the user's): of these there is what it logs, for it calls this object as its `logger_fn`.
    """

    def __init__(self) -> None:
        self.raw = Body()
        self._original: Any = None

    def __call__(self, details: Mapping[str, Any]) -> None:
        """Note the response, when there is one."""
        if details.get("log_event_type") == "post_api_call":
            self._original = details.get("original_response")

    @property
    def is_there(self) -> bool:
        """Whether a response came, with a status that says that it is one."""
        return self.raw.whole or self._original is not None

    @cached_property
    def body(self) -> Any:
        """The JSON of the response; None where it is none. To be read when it has come."""
        value = self.raw.read() if self.raw.whole else self._original
        if hasattr(value, "model_dump"):
            return value.model_dump(mode="json", warnings=False)
        if not isinstance(value, str | bytes):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return None

    @property
    def says_more(self) -> bool:
        """Whether it has answers in OpenAI's format, or an error: what it says of itself."""
        body = self.body
        return isinstance(body, Mapping) and (isinstance(body.get("choices"), list) or self.error is not None)

    @property
    def error(self) -> Any:
        """The error that it holds in place of an answer; None where it holds none."""
        first = self.body[0] if isinstance(self.body, list) and self.body else self.body  # Gemini's are in a list
        return error_in(first)

    def ends(self) -> list[str]:
        """Why each answer ended, in its vendor's own words, as far as it says so."""
        body = self.body
        if isinstance(body, list):  # Hugging Face's inference servers
            return [str(_inner(item, "details").get("finish_reason") or "") for item in body]
        return list(_ends(body)) if isinstance(body, Mapping) else []


def _ends(body: Mapping[str, Any]) -> Iterator[str]:
    for name, words in _LISTS.items():
        if isinstance(answers := body.get(name), list) and answers:
            for answer in answers:
                said = [answer.get(word) for word in words] if isinstance(answer, Mapping) else []
                said = ["error"] if error_in(answer) is not None else said
                yield next((str(word) for word in said if word), "")
            return
    if blocked := _inner(body, "promptFeedback").get("blockReason"):
        yield str(blocked)
    elif body.get("object") == "response":  # OpenAI's Responses API
        yield str(_inner(body, "incomplete_details").get("reason") or body.get("status") or "")
    elif body.get("done") is False:  # Ollama, where more should have come
        yield "incomplete"
    else:
        yield next((str(body[word]) for word in _ALONE if body.get(word)), "")


def _inner(value: Any, name: str) -> Mapping[str, Any]:
    inner = value.get(name) if isinstance(value, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


class Heard:
    """What a stream said on its way to LiteLLM: the words with which it ended, and an error."""

    def __init__(self) -> None:
        self.end = ""
        self.error: Any = None
        self.is_over = False  # it ended, and what came last held nothing more of the answer
        self._has_ends = False

    @property
    def broke_off(self) -> bool:
        """It came in a format that says why an answer ended, and did not say so."""
        return self._has_ends and not self.end

    def note(self, item: Any) -> None:
        """A piece of it: a line as it came, or an object of OpenAI's client."""
        body = _piece(item)
        if body is None:
            return
        self._has_ends |= any(isinstance(body.get(name), list) for name in ("choices", "candidates"))
        self._has_ends |= body.get("type") == "message_start"  # Anthropic
        choices = body.get("choices")
        self.is_over = bool(self.end) and not choices
        parts = [body, *(choices if isinstance(choices, list) else ())]
        self.error = self.error or next((error for part in parts if (error := error_in(part)) is not None), None)
        inner = [body, _inner(body, "delta"), _inner(body, "response")]  # Anthropic's and Cohere's; Responses API
        natives = [str(part.get("native_finish_reason") or "") for part in parts if isinstance(part, Mapping)]
        for word in [*(end for part in inner for end in list(_ends(part))[:1]), *natives]:
            if word and meaning_of(word) != "unknown":
                self.end = graver(self.end or None, word) or word
            elif word and not self.end:
                self.end = word

    def note_failure(self, error: Exception) -> None:
        """OpenAI's client raises an error that stands in a stream."""
        self.error = self.error or getattr(error, "body", None)


def listen(response: Any) -> Heard | None:
    """Hear what goes into a LiteLLM stream, from its first piece; None for what is not one."""
    if not hasattr(response, "completion_stream"):
        return None
    heard = Heard()
    if response.completion_stream is not None:
        response.completion_stream = _tapped(response.completion_stream, heard)
    elif callable(make := getattr(response, "make_call", None)):  # the call is made when the first piece is asked for

        async def made(*args: Any, **options: Any) -> Any:
            return _tapped(await make(*args, **options), heard)

        response.make_call = made
    return heard


def _tapped(stream: Any, heard: Heard) -> Any:
    if hasattr(lines := getattr(stream, "streaming_response", None), "__aiter__"):
        stream.streaming_response = _Tap(lines, heard)  # LiteLLM's readers of a vendor's lines
        return stream
    return _Tap(stream, heard) if hasattr(stream, "__aiter__") else stream


class _Tap:
    """An asynchronous iterator as it is, heard."""

    def __init__(self, inner: Any, heard: Heard) -> None:
        self._inner, self._heard = inner, heard
        self._iterator: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __aiter__(self) -> _Tap:
        self._iterator = aiter(self._inner)
        return self

    async def __anext__(self) -> Any:
        if self._iterator is None:
            aiter(self)
        try:
            item = await anext(self._iterator)
        except Exception as error:
            self._heard.note_failure(error)
            raise
        with suppress(Exception):  # what can't be understood here is LiteLLM's to read
            self._heard.note(item)
        return item


def _piece(item: Any) -> Mapping[str, Any] | None:
    if hasattr(item, "model_dump"):
        return item.model_dump(mode="json", warnings=False)  # type: ignore[no-any-return]
    if isinstance(item, Mapping):
        return item
    text = item.decode(errors="replace") if isinstance(item, bytes) else item if isinstance(item, str) else ""
    text = text.strip().removeprefix("data:").strip()
    if not text.startswith("{"):
        return None
    value = json.loads(text)
    return value if isinstance(value, Mapping) else None

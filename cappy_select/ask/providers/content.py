"""Content of messages that a model can't be sent, or only without its marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cappy_select.core.errors import ProviderError
from cappy_select.core.types import Message

NO_FORM = "no_form"
"""A content part with this key could not be put in OpenAI's form by who converted the message; its value says why."""


def check_parts(messages: Sequence[Message], *, model: str) -> None:
    """Raises ProviderError for marked content: LiteLLM drops what it does not know without a word, and the answer would
    be one to another prompt."""
    if why := reasons_in(messages):
        raise ProviderError("; ".join(why), kind="bad_request", model=model)


def reasons_in(messages: Sequence[Message]) -> list[str]:
    """Why content of these messages has no form; nothing where all has.

    Args:
        messages: OpenAI-style; a part that could not be put in OpenAI's form is marked with `NO_FORM`.

    Returns:
        Each reason once, in the order of the parts.
    """
    contents = (message.get("content") for message in messages)
    parts = (part for content in contents if isinstance(content, list | tuple) for part in content)
    return list(dict.fromkeys(str(part[NO_FORM]) for part in parts if isinstance(part, Mapping) and NO_FORM in part))


def for_claude(messages: Sequence[Message], *, model: str) -> list[dict[str, Any]]:
    """Messages as LiteLLM takes them for Anthropic's API.

    A file's address stands without its type, with which LiteLLM takes it for an id. Raises ProviderError for sound and
    moving pictures, which LiteLLM leaves out without a word.
    """
    return [
        {**message, "content": [_for_claude(part, model) for part in content]}
        if isinstance(content := message.get("content"), list | tuple)
        else dict(message)
        for message in messages
    ]


def _for_claude(part: Any, model: str) -> Any:
    if not isinstance(part, Mapping):
        return part
    file = part.get("file")
    data = str(file.get("file_data") or "") if isinstance(file, Mapping) else ""
    kind = str(file.get("format") or "") if isinstance(file, Mapping) else ""
    kind = kind or data.removeprefix("data:").partition(";")[0][:100]
    if part.get("type") in ("input_audio", "video_url") or kind.startswith(("audio/", "video/")):
        raise ProviderError(
            f"Claude takes no content of the type {kind or part['type']!r}", kind="bad_request", model=model
        )
    if isinstance(file, Mapping) and str(file.get("file_id", "")).startswith(("http://", "https://")):
        return {**part, "file": {name: value for name, value in file.items() if name != "format"}}
    return part


def without_cache_marks(messages: Sequence[Message]) -> tuple[dict[str, Any], ...]:
    """The messages without Anthropic's `cache_control`, unknown to OpenAI's own API, which caches unasked."""
    return tuple(
        {name: _unmarked(value) if name == "content" else value for name, value in message.items() if name != _MARK}
        for message in messages
    )


def _unmarked(content: Any) -> Any:
    if not isinstance(content, list | tuple):
        return content
    return [
        {name: value for name, value in part.items() if name != _MARK} if isinstance(part, Mapping) else part
        for part in content
    ]


_MARK = "cache_control"

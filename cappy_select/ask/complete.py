"""Whether an answer is whole: what every answer must be before anything else is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cappy_select.ask.finish_reasons import meaning_of
from cappy_select.core.characters import is_blank
from cappy_select.core.types import Candidate, Request
from cappy_select.text.messages import response_text
from cappy_select.text.tool_calls import calls_in

MAX_CHARACTERS = 2_000_000  # a longer answer is a broken server's: the largest models write a third of this


class Complete:
    """The answer has visible text behind its thinking, or a tool call, and is neither cut off, refused nor failed.

    Every Selector has this one. The module `finish_reasons` has the words of each vendor.

    Args:
        accept_cut_off: An answer that a limit of tokens cut off can win too.
    """

    def __init__(self, *, accept_cut_off: bool = False) -> None:
        self._accept_cut_off = accept_cut_off

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """What is wrong with an answer.

        Args:
            candidate: The answer.
            request: What was asked; it does not matter here.

        Returns:
            `refused: ...`, `failed: ...`, `empty answer`, `too long: ...`, `cut off ...`, with its vendor's word; None
            when it is whole.
        """
        refusal = _refusal(candidate.message)
        meaning = meaning_of(candidate.finish_reason)
        if refusal or meaning in ("refused", "failed"):
            what = "refused" if refusal else meaning
            return f"{what}: {str(refusal or candidate.finish_reason)[:200]}"
        text = response_text(candidate.message)
        if is_blank(text):
            return "empty answer"
        if None in calls_in(candidate.message):
            return "a tool call that is none: neither a function nor a custom tool with a name"
        if len(text) > MAX_CHARACTERS:
            return f"too long: {len(text):,} characters, at most {MAX_CHARACTERS:,} are read"
        if meaning == "cut_off" and not self._accept_cut_off:
            return f"cut off: {str(candidate.finish_reason)[:200]}"
        return None


def _refusal(message: Mapping[str, Any]) -> Any:
    """In the message, or in a part of its content."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    return next((said for part in (message, *parts) if (said := part.get("refusal"))), None)

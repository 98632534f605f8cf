"""The form that an answer was asked to have, read as LangChain reads it; and what is done when no answer has it.

An answer that fits always wins over one that does not. Where none fits, the bare model's caller would get what there
is: an agent deals with `invalid_tool_calls`, a parser says what is wrong, `include_raw` hands it on. So does ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.utils.json import parse_json_markdown

from cappy_select import (
    Candidate,
    InputError,
    Request,
)
from cappy_select.select import (
    AS_ASKED,
    reason_against,
)


class InForm:
    """The gates of a request with tools or a format, for JSON as LangChain's parsers read it: in a Markdown fence, with
    raw line breaks in its texts. Remembers the answers that have only their form against them."""

    def __init__(self) -> None:
        self.misfits: list[Candidate] = []

    def reason(self, candidate: Candidate, request: Request) -> str | None:
        """None for what was asked for."""
        read = candidate
        if request.params.get("response_format") and not candidate.message.get("tool_calls"):
            read = candidate.model_copy(update={"message": candidate.message | {"content": _bare(candidate.text)}})
        reason = reason_against(read, request, AS_ASKED)
        if reason is not None:
            self.misfits.append(candidate.model_copy(update={"rejected": reason}))
        return reason


def choice_among(choice: str | dict[str, Any] | bool, offered: Sequence[Mapping[str, Any]]) -> str | dict[str, Any]:
    """A `tool_choice` in OpenAI's words. Raises InputError for a tool that is not offered."""
    if isinstance(choice, dict):
        return choice
    names = [tool["function"]["name"] for tool in offered if "function" in tool]
    if choice is True:
        if len(names) != 1:
            raise InputError(f"tool_choice=True is for one tool, got {len(names)}: name the one, or 'any'")
        choice = names[0]
    if choice in names:
        return {"type": "function", "function": {"name": choice}}
    if choice in ("any", "required"):
        return "required"
    if choice in ("auto", "none"):
        return str(choice)
    raise InputError(f"tool_choice must be auto, none, any or one of {', '.join(names)}, got {choice!r}")


def _bare(text: str) -> str:
    """The JSON in a text; the text as it is where there is none."""
    try:
        return json.dumps(parse_json_markdown(text, parser=_whole))
    except (ValueError, RecursionError):
        return text


_whole: Any = partial(json.loads, strict=False)  # LangChain's own parser would complete what was cut off

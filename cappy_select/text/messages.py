"""What is read of a chat message: its text, with or without its thinking, and its tool calls."""

from __future__ import annotations

from cappy_select.core.types import Message, content_text
from cappy_select.text.thinking import behind_thinking
from cappy_select.text.tool_calls import calls_in


def response_text(message: Message) -> str:
    """What the scorer reads of an answer: its text behind the thinking, then its tool calls.

    Args:
        message: An assistant message in OpenAI's form.

    Returns:
        The text, then each call as `name(arguments)` in a line of its own; empty when there is neither.
    """
    return _lines(message, behind_thinking(content_text(message.get("content"))[0]))


def message_text(message: Message) -> str:
    """All that was written: the text with its thinking, then the tool calls.

    Args:
        message: A message in OpenAI's form.

    Returns:
        The text, then each call as `name(arguments)` in a line of its own; empty when there is neither.
    """
    return _lines(message, content_text(message.get("content"))[0])


def _lines(message: Message, text: str) -> str:
    lines = [text, *(str(call) for call in calls_in(message) if call is not None)]
    return "\n".join(line for line in lines if line)

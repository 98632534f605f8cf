"""From messages to the instruction the scorer reads.

The scorer has one window for instruction and response together. A plain prompt is the instruction, as in
the paper. Of a chat the last user message matters most, so it stands last and the instruction is cut from
the left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

from cappy_select.core.errors import InputError
from cappy_select.core.json_text import DEEPEST, is_too_deep
from cappy_select.core.types import (
    CutSide,
    Instruction,
    InstructionPolicy,
    Message,
    Prompt,
    content_text,
)
from cappy_select.text.thinking import behind_thinking

POLICIES = ("paper", "chat", "last_user")

_SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool", "function": "Tool"}
_SYSTEM_ROLES = {"system", "developer"}


def as_messages(prompt: Prompt) -> tuple[dict[str, Any], ...]:
    """The prompt as OpenAI-style messages.

    Args:
        prompt: A text, which becomes one user message; or messages, each with a `role` and a `content` of text, parts
            or None.

    Returns:
        The messages, copied: who gets them can't change the caller's.

    Raises:
        InputError: it is no prompt, or a message is none or is nested too deep; names the message, from 0.
    """
    if isinstance(prompt, str):
        return ({"role": "user", "content": prompt},)
    if not isinstance(prompt, Sequence) or not prompt:
        raise InputError(f"a prompt is a str or a non-empty list of messages, got {_what(prompt)}")
    for position, message in enumerate(prompt):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InputError(
                f"message {position} must be a mapping with a 'role' such as "
                f"{{'role': 'user', 'content': '...'}}, got {_what(message)}"
            )
        content = message.get("content")
        if not (content is None or isinstance(content, str) or _is_parts(content)):
            raise InputError(
                f"message {position}: 'content' must be a str, a list of parts or None, got {_what(content)}"
            )
        if is_too_deep(message):
            raise InputError(f"message {position} is nested more than {DEEPEST} deep")
    return tuple(deepcopy(dict(cast(Message, message))) for message in prompt)  # a provider can't change the caller's


def check_policy(policy: InstructionPolicy | None) -> None:
    """Raises InputError when `policy` is no policy."""
    if not (policy is None or callable(policy) or policy in POLICIES):
        raise InputError(f"instruction policy must be one of {', '.join(POLICIES)} or a callable, got {policy!r}")


def build_instruction(
    prompt: Prompt,
    policy: InstructionPolicy | None,
    *,
    count_tokens: Callable[[str], int],
    budget: int,
    paper_side: CutSide = "right",
) -> Instruction:
    """The instruction for `prompt` under a policy.

    Args:
        prompt: A plain prompt, or OpenAI-style messages.
        policy: `paper`: the whole prompt, nothing added (the turns of a chat joined by blank lines), cut as the
            bundle's manifest says. `chat`: the last user message, preceded by the system message and by the other turns
            as far as they fit `budget`, newest first; cut from the left. `last_user`: only the last user message, cut
            from the left. A callable makes the text itself (cut from the left). None: `paper` for a str, `chat` for
            messages.
        count_tokens: Length of a text in the scorer's tokens.
        budget: Tokens that the instruction may have before earlier turns are left out.
        paper_side: The side the bundle's manifest cuts on.

    Returns:
        The text, still whole, with the side to cut it on and a count of what was left out.

    Raises:
        InputError: the policy is none, or returned no str; the prompt is none.
    """
    check_policy(policy)
    messages = as_messages(prompt)
    if callable(policy):
        text = policy(messages)
        if not isinstance(text, str):
            raise InputError(f"the instruction policy {_name(policy)} must return a str, got {_what(text)}")
        return Instruction(text=text, policy=_name(policy), cut_side="left")
    chosen = policy or ("paper" if isinstance(prompt, str) else "chat")
    texts, parts_left_out = _texts(messages)
    if chosen == "paper":
        whole = "\n\n".join(text for text in texts if text)
        return Instruction(text=whole, policy="paper", cut_side=paper_side, parts_left_out=parts_left_out)

    question_at = _last_user(messages)
    question = texts[question_at]
    if chosen == "last_user":
        return Instruction(
            text=question,
            policy="last_user",
            cut_side="left",
            turns_left_out=len(messages) - 1,
            parts_left_out=parts_left_out,
        )

    system = "\n\n".join(
        text
        for position, (message, text) in enumerate(zip(messages, texts, strict=True))
        if position != question_at and message["role"] in _SYSTEM_ROLES and text
    )
    turns = [
        f"{_SPEAKERS.get(message['role'], message['role'].title())}: {text}"
        for position, (message, text) in enumerate(zip(messages, texts, strict=True))
        if position != question_at and message["role"] not in _SYSTEM_ROLES and text
    ]
    kept = _newest_that_fit(turns, budget - count_tokens(system) - count_tokens(question), count_tokens)
    return Instruction(
        text="\n\n".join(part for part in (system, "\n".join(kept), question) if part),
        policy="chat",
        cut_side="left",
        turns_left_out=len(turns) - len(kept),
        parts_left_out=parts_left_out,
    )


def _newest_that_fit(turns: list[str], budget: int, count_tokens: Callable[[str], int]) -> list[str]:
    kept: list[str] = []
    for turn in reversed(turns):
        budget -= count_tokens(turn)
        if budget < 0:
            break
        kept.append(turn)
    return kept[::-1]


def _texts(messages: Sequence[Message]) -> tuple[list[str], tuple[str, ...]]:
    texts: list[str] = []
    left_out: list[str] = []
    for message in messages:
        text, parts = content_text(message.get("content"))
        texts.append(behind_thinking(text) if message.get("role") == "assistant" else text)
        left_out.extend(parts)
    return texts, tuple(left_out)


def _last_user(messages: Sequence[Message]) -> int:
    for position in range(len(messages) - 1, -1, -1):
        if messages[position]["role"] == "user":
            return position
    return len(messages) - 1  # no user turn at all: whatever came last is what is being answered


def _is_parts(content: Any) -> bool:
    return isinstance(content, Sequence) and all(isinstance(part, str | Mapping) for part in content)


def _name(policy: Callable[..., Any]) -> str:
    return getattr(policy, "__qualname__", type(policy).__qualname__)


def _what(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.80}"

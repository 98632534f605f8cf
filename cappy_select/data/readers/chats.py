"""Chats as OpenAI's fine-tuning files have them: `messages` a line, or a prompt with a better and a worse answer.

https://platform.openai.com/docs/guides/supervised-fine-tuning and .../direct-preference-optimization.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cappy_select.core.characters import is_blank
from cappy_select.core.errors import InputError
from cappy_select.core.types import InstructionPolicy
from cappy_select.data.formats import Problems, Record
from cappy_select.data.instances import Instance, as_instance
from cappy_select.data.readers.tables import Source, as_table, row_id
from cappy_select.text.instruction import build_instruction
from cappy_select.text.messages import response_text

BUDGET = 4096  # rough tokens of an instruction before its earlier turns go; the scorer cuts to its window later


def read_chats(
    source: Source,
    problems: Problems,
    *,
    policy: InstructionPolicy | None = None,
    budget: int = BUDGET,
    task: str | None = None,
) -> Iterator[tuple[str, Instance]]:
    """(place, instance) of `{"messages": [...]}` or `{"input": {"messages"}, "preferred_output", ...}` a row.

    Args:
        source: A file, a folder of files, or a table.
        problems: Gets the rows that are no chats.
        policy: How messages become the instruction, see `build_instruction`; None: `paper` for a single
            user message, `chat` otherwise.
        budget: Tokens that the instruction may have before earlier turns are left out. They are
            estimated at four bytes each, since no tokenizer is known here.
        task: Default: the file's name.

    Of `messages` the last one of the assistant is the reference (not one of weight 0), and what precedes it is
    asked. The preferred output is the reference, the other one is among the `negatives`. Tool calls read as
    `name(arguments)`. Raises InputError when the source can't be read.
    """
    table = as_table(source)
    for row in table.rows(problems):
        try:
            asked, answers = _exchange(row.values)
            text = build_instruction(
                asked, policy or _policy(asked), count_tokens=_rough_tokens, budget=budget, paper_side="left"
            ).text
        except InputError as error:
            problems.report(row.where, str(error))
            continue
        named = task or table.name
        given = {
            "id": row.values.get("id") or row_id(named, row),
            "task": named,
            "instruction": text,
            "split": table.split,
            **answers,
        }
        instance = as_instance(given, row.where, problems)
        if instance is not None:
            yield row.where, instance


def is_row(values: Record) -> bool:
    """Whether this is a row of chats."""
    asked = values.get("input")
    return isinstance(values.get("messages"), list) or (
        isinstance(asked, dict) and "messages" in asked and "preferred_output" in values
    )


def _exchange(values: Record) -> tuple[list[dict[str, Any]], Record]:
    """What was asked, and the answers. Raises InputError."""
    if not is_row(values):
        raise InputError(
            "expected 'messages', or 'input' with 'messages' beside 'preferred_output' and 'non_preferred_output', "
            f"got {', '.join(values)}"
        )
    if "messages" not in values:
        answers = {
            "references": (_answer(values, "preferred_output"),),
            "negatives": (_answer(values, "non_preferred_output"),),
        }
        return _messages(values["input"]["messages"], "input.messages"), answers
    messages = _messages(values["messages"], "messages")
    said = [n for n, message in enumerate(messages) if message["role"] == "assistant" and message.get("weight") != 0]
    if not said:
        raise InputError("no message of the assistant to learn from")
    reference = response_text(messages[said[-1]])
    if is_blank(reference):
        raise InputError("the last message of the assistant is empty")
    return messages[: said[-1]], {"references": (reference,)}


def _answer(values: Record, name: str) -> str:
    messages = _messages(values.get(name), name)
    text = "\n".join(filter(None, map(response_text, messages)))
    if is_blank(text):
        raise InputError(f"{name!r} is empty")
    return text


def _messages(value: Any, name: str) -> list[dict[str, Any]]:
    # Columns that a file has for some messages are None in the others when it was Parquet.
    if not isinstance(value, list) or not value:
        raise InputError(f"{name!r} must be a list of messages, got {value!r:.80}")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InputError(f"{name!r} must hold messages with a 'role', got {message!r:.80}")
    return [{key: item for key, item in message.items() if item is not None} for message in value]


def _policy(asked: list[dict[str, Any]]) -> InstructionPolicy:
    return "paper" if [message["role"] for message in asked] == ["user"] else "chat"


def _rough_tokens(text: str) -> int:
    return -(-len(text.encode(errors="replace")) // 4)

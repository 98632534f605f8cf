"""Between LangChain's messages and ours, which are OpenAI's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    InvalidToolCall,
    ToolCall,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call

from cappy_select import Candidate, Delta, InputError, Selection, Usage
from cappy_select.figures import tokens_of

ORIGINALS: ContextVar[Sequence[BaseMessage] | None] = ContextVar("cappy_originals", default=None)
"""The messages of the call that is being answered, for LangChain models among those asked."""

_SAID = ("text", "refusal")
_APART = {"role", "content", "tool_calls", "function_call"}  # keys that have a place of their own
_ORIGINAL = "langchain_message"  # where a candidate keeps the message that it was made of


def as_openai(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Messages as the models given by name read them. Raises InputError for content that they have no form for."""
    found: list[dict[str, Any]] = []
    for original in messages:
        try:
            converted = convert_to_openai_messages([original])
        except (ValueError, KeyError) as error:
            raise InputError(f"a {original.type} message can't be put in OpenAI's form: {error}") from error
        for message in converted:
            if isinstance(original, AIMessage):
                _tidy(message, original)
            found.append(message)
    return found


def readable(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Messages for the scorer, which reads text: content of other kinds stands by its kind's name."""
    try:
        return as_openai(messages)
    except InputError:
        texts = [
            message if isinstance(message.content, str) else message.model_copy(update={"content": _texts(message)})
            for message in messages
        ]
        return as_openai(texts)


def _texts(message: BaseMessage) -> str:
    parts = [part if isinstance(part, dict) else {"text": part} for part in message.content]
    return "\n".join(str(part.get("text") or f"({part.get('type')})") for part in parts)


def _tidy(message: dict[str, Any], original: AIMessage) -> None:
    """With the calls that could not be read, which tool messages may answer; without what the API refuses: what was
    thought, and tool calls that stand beside themselves."""
    if original.invalid_tool_calls:
        message["tool_calls"] = [
            *message.get("tool_calls", ()),
            *(
                {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["args"]}}
                for call in original.invalid_tool_calls
            ),
        ]
    content = message.get("content")
    if isinstance(content, list):
        kept = [part for part in content if part.get("type") in _SAID]
        message["content"] = kept or (None if message.get("tool_calls") else "")


def as_candidate(
    message: AIMessage, *, model: str, usage: Usage, cost: float | None = None, **fields: Any
) -> Candidate:
    """A LangChain model's answer as a candidate; it keeps the message, and what else is given."""
    ours: dict[str, Any] = {"role": "assistant", "content": message.content}
    if calls := as_openai([message.model_copy(update={"content": ""})])[0].get("tool_calls"):
        ours["tool_calls"] = calls
    ours |= {name: value for name, value in message.additional_kwargs.items() if name not in _APART}
    said = message.response_metadata
    return Candidate(
        model=model,
        message=ours,
        finish_reason=said.get("finish_reason") or said.get("stop_reason"),
        usage=usage,
        cost=cost,
        logprobs=said.get("logprobs"),
        response_fields={_ORIGINAL: message, **fields},
    )


def usage_of(message: AIMessage) -> Usage | None:
    """What a model said of its tokens; None when it said nothing, or what can't be."""
    said: Mapping[str, Any] = message.usage_metadata or {}
    prompt, completion = tokens_of(said.get("input_tokens")), tokens_of(said.get("output_tokens"))
    return None if prompt is None or completion is None else Usage(prompt_tokens=prompt, completion_tokens=completion)


def as_message(selection: Selection) -> AIMessage:
    """The winner: the message of a LangChain model as it was, with usage and metadata of the whole selection."""
    best = selection.best
    usage, metadata = _usage(selection), _metadata(selection)
    if (original := best.response_fields.get(_ORIGINAL)) is not None:
        kept: AIMessage = original.model_copy(update={"usage_metadata": usage, "response_metadata": metadata})
        return kept
    tool_calls, invalid_tool_calls = _tool_calls(best.message)
    return AIMessage(
        content=best.message.get("content") or "",
        additional_kwargs={name: value for name, value in best.message.items() if name not in _APART},
        tool_calls=tool_calls,
        invalid_tool_calls=invalid_tool_calls,
        usage_metadata=usage,
        response_metadata=metadata,
    )


def as_chunk(delta: Delta) -> AIMessageChunk:
    """A piece of an answer."""
    content = delta.message.get("content")
    return AIMessageChunk(
        content="" if content is None else content,
        additional_kwargs={name: value for name, value in delta.message.items() if name not in _APART},
        tool_call_chunks=[
            tool_call_chunk(
                name=(call.get("function") or {}).get("name"),
                args=(call.get("function") or {}).get("arguments"),
                id=call.get("id"),
                index=call.get("index"),
            )
            for call in delta.message.get("tool_calls") or ()
        ],
    )


def as_delta(chunk: AIMessageChunk) -> Delta:
    """A piece of a LangChain model's answer."""
    message = {name: value for name, value in chunk.additional_kwargs.items() if name not in _APART}
    if chunk.content or isinstance(chunk.content, list):  # an empty list says that it is one
        message["content"] = chunk.content
    if chunk.tool_call_chunks:
        message["tool_calls"] = [
            {
                "index": call["index"],
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["args"]},
            }
            for call in chunk.tool_call_chunks
        ]
    return Delta(message=message)


def last_chunk(selection: Selection) -> AIMessageChunk:
    """What ends a stream: usage and metadata."""
    return AIMessageChunk(
        content="",
        usage_metadata=_usage(selection),
        response_metadata=_metadata(selection),
        chunk_position="last",
    )


def summary(selection: Selection) -> dict[str, Any]:
    """`response_metadata`: the winner's model, score and finish reason, what all calls cost, what was weighed."""
    best = selection.best
    return {
        "model_name": best.model,
        "score": best.score,
        "finish_reason": best.finish_reason,
        "cost": selection.cost,
        "tokens_cut": {"instruction": selection.instruction.tokens_cut, "answer": best.tokens_cut},
        "candidates": [
            {"model": candidate.model, "score": candidate.score, "rejected": candidate.rejected}
            for candidate in selection.candidates
        ],
        "failures": [failure.model_dump(mode="json") for failure in selection.failures],
    }


def _metadata(selection: Selection) -> dict[str, Any]:
    """What a LangChain model said, and the summary."""
    original = selection.best.response_fields.get(_ORIGINAL)
    return ({} if original is None else original.response_metadata) | summary(selection)


def _usage(selection: Selection) -> UsageMetadata:
    usage = selection.usage
    return UsageMetadata(
        input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens, total_tokens=usage.total_tokens
    )


def _tool_calls(message: dict[str, Any]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Tool calls whose arguments are JSON, and those whose are not."""
    valid, invalid = [], []
    for call in message.get("tool_calls") or ():
        try:
            parsed = parse_tool_call(call, return_id=True)
        except OutputParserException as error:
            invalid.append(make_invalid_tool_call(call, str(error)))
        else:
            if parsed is not None:
                valid.append(tool_call(name=parsed["name"], args=parsed["args"], id=parsed["id"]))
    return valid, invalid

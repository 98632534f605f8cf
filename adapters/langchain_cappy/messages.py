"""Between LangChain's messages and ours, which are OpenAI's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

from cappy_select import (
    Candidate,
    Delta,
    InputError,
    NoCandidates,
    Selection,
    Usage,
)
from cappy_select.ask import (
    NO_FORM,
    pieces_of,
)
from cappy_select.core import (
    tokens_of,
)
from cappy_select.text import (
    arguments_text,
)
from langchain_cappy.blocks import joined_texts, kind_of, parts_of
from langchain_cappy.endings import finish_reason_of, refusal_of
from langchain_cappy.likelihoods import likelihood_of

Prompt = list[dict[str, Any]]

ORIGINALS: ContextVar[tuple[Sequence[BaseMessage], Prompt] | None] = ContextVar("cappy_originals", default=None)
"""The messages of the call that is being answered, and the prompt made of them: LangChain models see the former."""

_SAID = ("text", "refusal")
_THOUGHTS = ("thinking", "redacted_thinking")
_APART = {"role", "content", "tool_calls", "function_call"}  # keys that have a place of their own
_ORIGINAL = "langchain_message"  # where a candidate keeps the message that it was made of


def as_openai(messages: Sequence[BaseMessage], *, litellm: bool = True, thoughts: bool = False) -> Prompt:
    """Messages for the scorer, and as the models given by name read them. Content that these have no form for is marked
    (`blocks`). Raises InputError for a message whose role has none.

    Args:
        messages: Of any kind that LangChain has.
        litellm: The models are LiteLLM's, which take more than OpenAI's API does.
        thoughts: They want to see what they thought before they called a tool (Anthropic's).
    """
    found: Prompt = []
    for message in messages:
        found += _converted(message, litellm, thoughts)
    return found


def _converted(message: BaseMessage, litellm: bool, thoughts: bool) -> Prompt:
    bare = message.model_copy(update={"content": "", **({"tool_calls": []} if isinstance(message, AIMessage) else {})})
    try:
        (made,) = convert_to_openai_messages([bare])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"a {message.type} message can't be put in OpenAI's form: {error}") from error
    if mark := message.additional_kwargs.get("cache_control"):
        made["cache_control"] = mark
    content = message.content
    if isinstance(message, AIMessage):
        parts = [part for part in parts_of(content, litellm=litellm) if part["type"] in _SAID and NO_FORM not in part]
        made["content"] = joined_texts(parts, "")
        if calls := _calls_of(message):
            made["tool_calls"] = calls
            if isinstance(content, list) and not parts:
                made["content"] = None
        if thoughts and (blocks := _thoughts_of(message)):
            made["thinking_blocks"] = blocks
        return [made]
    results = [block for block in content if isinstance(block, dict) and block.get("type") == "tool_result"]
    others = content if isinstance(content, str) else [block for block in content if block not in results]
    made["content"] = joined_texts(parts_of(others, litellm=litellm), "\n")
    answers = [
        {
            "role": "tool",
            "tool_call_id": str(result.get("tool_use_id")),
            "content": joined_texts(parts_of(result.get("content"), litellm=litellm), "\n"),
        }
        for result in results
    ]
    return answers if answers and not others else [made, *answers]


def _calls_of(message: AIMessage) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's form: those that were read, those that could not be, which tool messages may answer too,
    and those that stand in the content alone."""
    calls: list[tuple[Any, Any, Any]] = [(call.get("id"), call["name"], call["args"]) for call in message.tool_calls]
    calls += [(call.get("id"), call.get("name"), call.get("args") or "") for call in message.invalid_tool_calls]
    known = {id_ for id_, _, _ in calls}
    for block in message.content if isinstance(message.content, list) else ():
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(block, dict) or kind not in ("tool_use", "tool_call", "function_call"):
            continue
        id_ = block.get("call_id") or block.get("id")
        args: Any = next((block[name] for name in ("input", "args", "arguments") if name in block), {})
        if id_ not in known:
            calls.append((id_, block.get("name"), args))
    return [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments_text(args)}}
        for id_, name, args in calls
    ]


def _thoughts_of(message: AIMessage) -> list[dict[str, Any]]:
    """What an Anthropic model thought, with its signature, without which it does not take it back."""
    blocks = message.content if isinstance(message.content, list) else []
    found = [
        {name: value for name, value in block.items() if name != "index"}
        for block in blocks
        if isinstance(block, dict) and block.get("type") in _THOUGHTS and (block.get("signature") or block.get("data"))
    ]
    given = message.additional_kwargs.get("thinking_blocks")
    return found or (list(given) if isinstance(given, list) else [])


def as_candidate(
    message: AIMessage, *, model: str, usage: Usage, cost: float | None = None, **fields: Any
) -> Candidate:
    """A LangChain model's answer as a candidate; it keeps the message, and what else is given."""
    ours: dict[str, Any] = {"role": "assistant", "content": _readable(message)}
    if calls := _calls_of(message):
        ours["tool_calls"] = calls
    ours |= {name: value for name, value in message.additional_kwargs.items() if name not in _APART}
    if refusal := refusal_of(message):
        ours["refusal"] = refusal
    logprobs, total, mean = likelihood_of(message)
    return Candidate(
        model=model,
        message=ours,
        finish_reason=finish_reason_of(message),
        usage=usage,
        cost=cost,
        logprobs=logprobs,
        logprob_sum=total,
        logprob_mean=mean,
        response_fields={_ORIGINAL: message, **fields},
    )


def _readable(message: AIMessage) -> Any:
    """The content; of an answer that is a picture or speech alone with a text in its place, or it would be none."""
    content = message.content
    if isinstance(content, str) and not content:
        spoken = message.additional_kwargs.get("audio")  # OpenAI's, with what was said
        said = spoken.get("transcript") if isinstance(spoken, Mapping) else None
        return [{"type": "text", "text": said, _STAND_IN: True}] if isinstance(said, str) and said else content
    if isinstance(content, str) or message.text:
        return content
    kinds = [kind for block in content if (kind := kind_of(block)) in _SHOWN]
    stand_ins = [{"type": "text", "text": f"({kind})", _STAND_IN: True} for kind in kinds]
    return [*content, *stand_ins]


_SHOWN = {"image", "image_url", "audio", "input_audio", "video", "file", "media", "image_generation_call"}
_STAND_IN = "cappy_stand_in"


def usage_of(message: AIMessage) -> Usage | None:
    """What a model said of its tokens; None when it said nothing, or what can't be."""
    # Models of older packages have them in their metadata alone.
    for said in (message.usage_metadata, *(message.response_metadata.get(name) for name in ("token_usage", "usage"))):
        counts = said if isinstance(said, Mapping) else {}
        prompt = tokens_of(counts.get("input_tokens", counts.get("prompt_tokens")))
        completion = tokens_of(counts.get("output_tokens", counts.get("completion_tokens")))
        if prompt is not None and completion is not None:
            return Usage(prompt_tokens=prompt, completion_tokens=completion)
    return None


def as_message(selection: Selection) -> AIMessage:
    """The winner: the message of a LangChain model as it was, with usage and metadata of the whole selection."""
    return _message(selection.best, selection.usage, summary(selection))


def unfit_message(candidate: Candidate, error: NoCandidates) -> AIMessage:
    """An answer of which no better came, with what is against it."""
    return _message(candidate, error.usage, _against(candidate, error))


def _message(candidate: Candidate, used: Usage, metadata: dict[str, Any]) -> AIMessage:
    usage = _usage(used)
    if (original := candidate.response_fields.get(_ORIGINAL)) is not None:
        metadata = original.response_metadata | metadata
        kept: AIMessage = original.model_copy(update={"usage_metadata": usage, "response_metadata": metadata})
        return kept
    tool_calls, invalid_tool_calls = _tool_calls(candidate.message)
    return AIMessage(
        content=candidate.message.get("content") or "",
        additional_kwargs={name: value for name, value in candidate.message.items() if name not in _APART},
        tool_calls=tool_calls,
        invalid_tool_calls=invalid_tool_calls,
        usage_metadata=usage,
        response_metadata=metadata,
    )


def as_chunk(delta: Delta) -> AIMessageChunk:
    """A piece of an answer."""
    content = delta.message.get("content")
    if isinstance(content, list):
        content = [part for part in content if not (isinstance(part, dict) and _STAND_IN in part)]
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
    return _last(selection.best, selection.usage, summary(selection))


def unfit_chunks(candidate: Candidate, error: NoCandidates, *, begun: bool) -> Iterator[AIMessageChunk]:
    """`unfit_message` in pieces; `begun`: those of the answer itself were passed on already."""
    if not begun:
        yield from map(as_chunk, pieces_of(candidate.message))
    yield _last(candidate, error.usage, _against(candidate, error))


def _last(candidate: Candidate, used: Usage, metadata: dict[str, Any]) -> AIMessageChunk:
    original = candidate.response_fields.get(_ORIGINAL)
    return AIMessageChunk(
        content="",
        usage_metadata=_usage(used),
        response_metadata=({} if original is None else original.response_metadata) | metadata,
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


def _against(candidate: Candidate, error: NoCandidates) -> dict[str, Any]:
    """`response_metadata` of an answer that has not the form that was asked for."""
    return {
        "model_name": candidate.model,
        "score": None,
        "finish_reason": candidate.finish_reason,
        "cost": error.cost,
        "no_usable_answer": str(error),
    }


def _usage(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens, total_tokens=usage.total_tokens
    )


def _tool_calls(message: dict[str, Any]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Tool calls whose arguments are JSON, and those whose are not."""
    valid, invalid = [], []
    for call in message.get("tool_calls") or ():
        try:
            parsed = parse_tool_call(call, return_id=True)
        except (OutputParserException, ValueError, RecursionError) as error:  # a number or nesting without end
            invalid.append(make_invalid_tool_call(call, str(error)))
        else:
            if parsed is not None and not isinstance(parsed["args"], dict):
                invalid.append(make_invalid_tool_call(call, "the arguments are no object"))
            elif parsed is not None:
                valid.append(tool_call(name=parsed["name"], args=parsed["args"], id=parsed["id"]))
    return valid, invalid

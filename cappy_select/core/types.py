"""The values that travel along the online line: frozen, serialisable, without behaviour of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticSerializationError

from cappy_select.core.characters import escaped

Message = Mapping[str, Any]
"""One OpenAI-style chat message: `role`, `content`, and what else the role carries."""

Prompt = str | Sequence[Message]
"""What a caller asks: a plain prompt, or a chat."""


class _Frozen(BaseModel):
    """JSON of it holds lone surrogates, which some models send, as escapes (`\\ud83d`), and takes them back."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def model_dump_json(self, **options: Any) -> str:
        """As pydantic's, for any text."""
        try:
            return super().model_dump_json(**options)
        except (PydanticSerializationError, UnicodeEncodeError):
            indent, ascii_only = options.pop("indent", None), options.pop("ensure_ascii", False)
            separators = (",", ":") if indent is None else (",", ": ")
            value = self.model_dump(mode="json", **options)
            return escaped(json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators))

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """As pydantic's, for any text."""
        text = json_data if isinstance(json_data, str) else bytes(json_data).decode(errors="replace")
        if _ESCAPED_HALF.search(text) is None:
            return super().model_validate_json(json_data, **options)
        return cls.model_validate(json.loads(text), **options)


_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")


FailureKind = Literal[
    "rate_limit",
    "timeout",
    "auth",
    "content_policy",
    "context_window",
    "bad_request",
    "server",
    "connection",
    "invalid_response",
    "unavailable",
    "budget",
    "cancelled",
]
"""How a call failed. The last three are the fan-out's: the model is cooling down after failures, the money
limit forbade the call, it was not needed any more."""

RETRYABLE: frozenset[FailureKind] = frozenset({"rate_limit", "timeout", "server", "connection"})


class Usage(_Frozen):
    """Tokens of one or several calls.

    Attributes:
        prompt_tokens: Tokens that were read.
        completion_tokens: Tokens that were written, thinking included where the provider counts it.
        estimated: Whether any part of it was not reported, but counted here.
    """

    prompt_tokens: int = Field(0, ge=0)
    completion_tokens: int = Field(0, ge=0)
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            estimated=self.estimated or other.estimated,
        )


class Request(_Frozen):
    """One upstream call.

    Attributes:
        messages: The prompt, as OpenAI-style messages.
        n: How many answers are asked for.
        sample: The number of its first answer among those asked of the model, from 0: recorded answers are replayed by
            it.
        timeout_s: Seconds that the call may take.
        params: What goes to the provider as it is (temperature, max_tokens, tools, response_format, ...).
        allowed: Those of `params` that the panel's owner set, or allows by name. Any other that is not OpenAI's may
            come from anybody, and goes no further than into the body of the provider's request.
    """

    messages: tuple[dict[str, Any], ...] = Field(min_length=1)
    n: int = Field(1, ge=1)
    sample: int = Field(0, ge=0)
    timeout_s: float = Field(60.0, gt=0)
    params: dict[str, Any] = Field(default_factory=dict)
    allowed: frozenset[str] = frozenset()


class Candidate(_Frozen):
    """One answer of one model.

    Usage and cost are this answer's share of its call, so that sums over candidates are exact.

    Attributes:
        model: The model that gave it, as its provider is named.
        message: The assistant message as the provider gave it.
        index: Its position in request order, from 0.
        score: The scorer's raw score; None when it was not scored.
        finish_reason: Why the model ended, as the provider says (`stop`, `length`, ...).
        usage: Tokens.
        cost: Dollars; None when the price is unknown.
        latency_s: Seconds that its call took, from the first attempt's start, retries included.
        logprobs: The tokens' log-probabilities, in the form of OpenAI's; None when the provider gave none.
        response_fields: What else the response carried (citations, fingerprints).
        logprob_sum: Log-likelihood of the answer's tokens, natural, summed.
        logprob_mean: The same a token.
        sampling: How it was asked for, the seed too.
        tokens_cut: Tokens of the answer that did not fit the scorer's window.
        rejected: Why it could not win; None when it could.
    """

    model: str
    message: dict[str, Any]
    index: int = Field(0, ge=0, description="position in request order, from 0")
    score: float | None = Field(None, description="raw score; None when it was not scored")
    finish_reason: str | None = None
    usage: Usage = Usage()
    cost: float | None = None
    latency_s: float = Field(0.0, ge=0)
    logprobs: dict[str, Any] | None = None
    response_fields: dict[str, Any] = Field(default_factory=dict)
    logprob_sum: float | None = Field(None, description="log-likelihood of the answer's tokens, natural, summed")
    logprob_mean: float | None = Field(None, description="the same a token")
    sampling: dict[str, Any] = Field(default_factory=dict, description="how it was asked for, the seed too")
    tokens_cut: int = Field(0, ge=0)
    rejected: str | None = Field(None, description="why it could not win; None when it could")

    @property
    def text(self) -> str:
        """The answer's text, verbatim; empty when it is only a tool call."""
        return content_text(self.message.get("content"))[0]


class Delta(_Frozen):
    """A piece of an assistant message while it is streamed.

    Attributes:
        message: The piece, in the form of OpenAI's `delta`.
    """

    message: dict[str, Any]


class Failure(_Frozen):
    """One call that brought no answer, and why.

    Attributes:
        model: The model that was asked, or would have been.
        kind: The failure's class.
        message: What happened, without secrets.
        latency_s: Seconds that the call took, from the first attempt's start, retries included.
        attempts: Calls made; 0 when it was not asked at all.
        usage: Tokens that the call is known or estimated to have used.
        cost: Dollars of `usage`; None when unknown.
    """

    model: str
    kind: FailureKind
    message: str
    latency_s: float = Field(0.0, ge=0)
    attempts: int = Field(0, ge=0, description="calls made; 0 when it was not asked at all")
    usage: Usage = Usage()
    cost: float | None = None


CutSide = Literal["left", "right"]


class Instruction(_Frozen):
    """What the scorer read as the instruction, and how it was made.

    Attributes:
        text: The instruction, before anything of it was cut.
        policy: `paper`, `chat`, `last_user`, or the name of the caller's function.
        cut_side: The side on which it loses tokens that do not fit.
        tokens_cut: The largest number of its tokens that had to go to fit it beside a response.
        turns_left_out: Chat messages that were left out, because they did not fit or the policy reads none of them.
        parts_left_out: Types of the content that is not text (images, audio), one for each part.
    """

    text: str
    policy: str
    cut_side: CutSide
    tokens_cut: int = Field(0, ge=0)
    turns_left_out: int = Field(0, ge=0)
    parts_left_out: tuple[str, ...] = ()


class Downgrade(_Frozen):
    """What a sampling plan asked of a model in vain, and was allowed to go without.

    Attributes:
        model: The model that can't do it.
        left_out: Parameters, and the values asked for.
        answers: How many answers were sampled without them.
    """

    model: str
    left_out: dict[str, Any] = Field(description="parameters, and the values asked for")
    answers: int = Field(ge=1, description="how many were sampled without them")


Ended = Literal["complete", "deadline", "grace", "stop_when", "budget"]
"""Why the fan-out ended: every call did, time was up, the stragglers' time was up, an answer was good enough,
the money was spent."""


class Selection(_Frozen):
    """The best answer, and everything that was weighed to find it.

    Attributes:
        candidates: The answers, best first, rejected ones last; at least one.
        failures: The calls that brought no answer.
        instruction: What the scorer read as the instruction.
        scorer: The scorer's name, version and digest.
        strategy: The name of the strategy that ordered the candidates.
        plan: The sampling plan's name; `custom` when it has none.
        downgrades: What the plan asked of models in vain.
        examples: In-context examples shown, by model.
        ended: Why the fan-out ended.
        usage: Tokens over all calls, the lost ones too.
        cost: Dollars over all calls; None when a price is unknown.
        latency_s: Seconds from the question to the selection.
    """

    candidates: tuple[Candidate, ...] = Field(min_length=1, description="best first, rejected ones last")
    failures: tuple[Failure, ...] = ()
    instruction: Instruction
    scorer: str = Field(description="the scorer's name, version and digest")
    strategy: str
    plan: str = Field("custom", description="the sampling plan's name")
    downgrades: tuple[Downgrade, ...] = ()
    examples: dict[str, int] = Field(default_factory=dict, description="in-context examples shown, by model")
    ended: Ended = "complete"
    usage: Usage = Field(description="over all calls, the lost ones too")
    cost: float | None = Field(description="dollars over all calls; None when a price is unknown")
    latency_s: float = Field(ge=0)

    @property
    def best(self) -> Candidate:
        """The winner."""
        return self.candidates[0]

    @property
    def text(self) -> str:
        """The winner's text, verbatim."""
        return self.best.text


InstructionPolicy = Literal["paper", "chat", "last_user"] | Callable[[Sequence[Message]], str]


def content_text(content: Any) -> tuple[str, tuple[str, ...]]:
    """A message's text, and the types of the content parts that are not text. Takes whatever models send.

    Args:
        content: A message's `content`: a text, None, a list of parts in the form of OpenAI's, or anything else.

    Returns:
        (text, types): the texts of all parts joined with nothing between; the `type` of each part that is not text, in
        their order, `unknown` where it has none.
    """
    if content is None or isinstance(content, str):
        return content or "", ()
    texts, left_out = [], []
    for part in content if isinstance(content, Sequence) else (content,):
        if isinstance(part, str):
            texts.append(part)
            continue
        kind, text = (part.get("type"), part.get("text")) if isinstance(part, Mapping) else (None, None)
        if kind in {"text", "input_text", "output_text"} and isinstance(text, str):
            texts.append(text)
        else:
            left_out.append(str(kind or "unknown"))
    return "".join(texts), tuple(left_out)


def total_cost(costs: Iterable[float | None]) -> float | None:
    """The sum in dollars, or None when any part is unknown."""
    total = 0.0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total

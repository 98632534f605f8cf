"""What a call may cost at most, before it is made: bounds, not estimates, so that a money limit is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cappy_select.ask.parameters import all_of, squashed
from cappy_select.ask.sampling import token_limit
from cappy_select.core.figures import MOST_TOKENS, dollars_of, tokens_of
from cappy_select.core.types import Message, Request, Usage
from cappy_select.text.messages import message_text

_FRAME = 8  # tokens around a message: role, name, separators; OpenAI's models take 3 to 5
_COUNTS = frozenset({"n", "bestof", "numreturnsequences", "candidatecount"})  # of answers, as servers call it
_TOOLS = 800  # of a vendor's own prompt where there are tools; Anthropic's has 530 at most
_WITH_TOOLS = frozenset({"tools", "functions", "responseformat"})  # LiteLLM makes a tool of a schema


def most_usage(request: Request, params: Mapping[str, Any]) -> Usage:
    """Tokens of a call at most, where all `params` go out with it.

    No token is shorter than a byte: of the prompt all that is sent counts a token a byte of its JSON, images apart.
    An answer has as many as its limit says, or none when there is no limit. Raises InputError for a limit that is none.
    """
    others = {name: value for name, value in params.items() if not isinstance(value, int | float | None)}
    prompt = sum(_FRAME + _bytes_of(_without_images(message)) for message in request.messages)
    prompt += _bytes_of(others) + (_TOOLS if _WITH_TOOLS & {squashed(name) for name, _ in all_of(params)} else 0)
    counts = [tokens_of(value) or 1 for name, value in all_of(params) if squashed(name) in _COUNTS]
    answers = max(request.n, *counts, 1)  # a provider's own `n` stands where a request has none
    return Usage(prompt_tokens=prompt, completion_tokens=answers * (token_limit(params) or 0))


def _bytes_of(value: Any) -> int:
    try:
        return len(json.dumps(value, ensure_ascii=False, default=str).encode(errors="surrogatepass"))
    except (TypeError, ValueError, RecursionError):  # no JSON, so no client can send it either
        return MOST_TOKENS


def _without_images(message: Message) -> Message:
    """The message without its images, whose tokens are each model's own affair."""
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return message
    return {**message, "content": [part for part in content if "image" not in _kind(part)]}


def _kind(part: Any) -> str:
    return str(part.get("type")) if isinstance(part, Mapping) else ""


_RATE = re.compile(
    r"(?P<what>input_cost_per(?:_audio|_video)?_token|cache_creation_input(?:_audio)?_token_cost"
    r"|output_cost_per(?:_reasoning|_audio)?_token)"
    r"(?P<hours>_above_\d+hr)?(?:_above_(?P<tokens>\d+)k_tokens)?(?:_(?P<tier>[a-z]+))?"
)
_Asked = Sequence[tuple[str, Any]]  # parameters by their squashed names
_USUAL_TIERS = (None, "default", "standard", "standard_only")


def highest_of(listed: Mapping[str, Any], usage: Usage, request: Request, params: Mapping[str, Any]) -> float | None:
    """Dollars at most for `usage`, by a model's entry in LiteLLM's price list; None without a price.

    The dearest of all rates that may apply: those above a number of tokens, of writing a cache, of reasoning, of
    audio where there is some, and of every service tier where the parameters name one.
    """
    asked = [(squashed(name), value) for name, value in all_of(params)]
    found: dict[str, float] = {}
    for rates in (listed, *_tiers_within(listed, usage)):
        for what, rate in _rates(rates, usage, _media(request, asked), any_tier=_names_a_tier(asked)):
            side = "output" if what.startswith("output") else "input"
            found[side] = max(found.get(side, 0.0), rate)
    if not found:
        return None
    dollars = found.get("input", 0.0) * usage.prompt_tokens + found.get("output", 0.0) * usage.completion_tokens
    return dollars * _surcharge(listed, asked)


def _rates(rates: Mapping[str, Any], usage: Usage, media: str, *, any_tier: bool) -> Iterator[tuple[str, float]]:
    for name, value in rates.items():
        rate, parts = dollars_of(value), _RATE.fullmatch(name)
        if rate is None or parts is None or parts["tier"] == "batches":
            continue
        medium = next((kind for kind in ("audio", "video") if kind in parts["what"]), "")
        reached = usage.prompt_tokens > 1000 * int(parts["tokens"] or 0) if parts["tokens"] else True
        if reached and medium in media and (any_tier or parts["tier"] is None):
            yield parts["what"], rate


def _tiers_within(listed: Mapping[str, Any], usage: Usage) -> Iterator[Mapping[str, Any]]:
    """Rates by the length of the prompt, in the list's other form."""
    tiers = listed.get("tiered_pricing")
    for tier in tiers if isinstance(tiers, list) else ():
        if usage.prompt_tokens >= tier.get("range", [0])[0]:
            yield tier


def _names_a_tier(asked: _Asked) -> bool:
    return any(value not in _USUAL_TIERS for name, value in asked if name == "servicetier")


def _media(request: Request, asked: _Asked) -> str:
    """The media of a request beside text, as words in a text."""
    contents = [message.get("content") for message in request.messages]
    kinds = [_kind(part) for content in contents if isinstance(content, list | tuple) for part in content]
    kinds += [str(value) for name, value in asked if name == "modalities"]
    kinds += ["audio" for name, value in asked if name == "audio" and value]
    return " ".join(kinds)


def _surcharge(listed: Mapping[str, Any], asked: _Asked) -> float:
    """What regions, and modes such as Anthropic's `speed`, multiply the price by."""
    factor = max([1.0, *(dollars_of(value) or 1.0 for name, value in listed.items() if "multiplier" in name)])
    by_value = listed.get("provider_specific_entry")
    for _, value in asked:
        if isinstance(by_value, Mapping) and isinstance(value, str):
            factor *= max(1.0, dollars_of(by_value.get(value.lower())) or 1.0)
    return factor


_BYTES_PER_TOKEN = 4  # OpenAI's rule of thumb for English text


def estimated_usage(prompt: Sequence[Message], answers: Sequence[Message] = (), tools: Any = None) -> Usage:
    """Usage of a call that reported none, from the size of its texts and tools; flagged as an estimate.

    Four bytes of UTF-8 count as a token (OpenAI's rule of thumb for English). Content that is not text is not counted:
    what an image costs is each model's own affair.

    Args:
        prompt: The messages that were sent.
        answers: The messages that came, or what came of them.
        tools: The tools that were offered, in any form.

    Returns:
        Tokens, with `estimated` set; none where a message is nested without end.
    """

    def tokens(text: str) -> int:
        return -(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)

    try:
        asked = "".join(message_text(message) for message in prompt)
        asked += json.dumps(tools, default=str) if tools else ""
        written = "".join(message_text(message) for message in answers)
    except (TypeError, ValueError, RecursionError):  # nested without end: it says nothing of its size
        return Usage(estimated=True)
    return Usage(prompt_tokens=tokens(asked), completion_tokens=tokens(written), estimated=True)

"""What went wrong in a call, in our words: of an exception of OpenAI's client or LiteLLM, or of an error in a 200."""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping
from email.utils import parsedate_to_datetime
from html import unescape
from pathlib import Path
from typing import Any

from cappy_select.ask.providers.transport import UnwantedResponse
from cappy_select.core.characters import without_halves
from cappy_select.core.errors import ProviderError
from cappy_select.core.masking import masked
from cappy_select.core.types import FailureKind, Usage

# By class name, most specific class first along each exception's own ancestry.
_KINDS: dict[str, FailureKind] = {
    "RateLimitError": "rate_limit",
    "Timeout": "timeout",
    "APITimeoutError": "timeout",
    "AuthenticationError": "auth",
    "PermissionDeniedError": "auth",
    "ContentPolicyViolationError": "content_policy",
    "ContextWindowExceededError": "context_window",
    "APIConnectionError": "connection",
    "APIResponseValidationError": "invalid_response",
    "ServiceUnavailableError": "server",
    "InternalServerError": "server",
    "BadGatewayError": "server",
    "BadRequestError": "bad_request",
    "NotFoundError": "bad_request",
    "UnprocessableEntityError": "bad_request",
}


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# What servers say of a request that they would not take, in their codes and in their sentences.
_REFUSALS: tuple[tuple[FailureKind, re.Pattern[str]], ...] = (
    (
        "context_window",
        _words(
            r"context[ _-]?(?:length|window|size|limit)",  # OpenAI, vLLM, llama.cpp, Ollama, DeepSeek
            r"(?:prompt|input|messages?) (?:is |are |was )?too (?:long|large)",  # Anthropic, Bedrock, Fireworks, Ollama
            r"too many (?:input |prompt |total )?tokens",  # Cohere, Bedrock
            # Gemini, Mistral
            r"(?:input|prompt)[^.]{0,80}tokens?[^.]{0,80}(?:exceed|longer than|too large|must be less)",
            r"number of (?:input |total )?tokens[^.]{0,80}(?:exceed|less than)",  # Cohere, Watsonx, Gemini
            r"maximum (?:prompt|model|input|sequence) length",  # xAI, vLLM
            r"`inputs`[^.]{0,40}(?:`max_new_tokens`|must have less than)",  # TGI, Together
            r"exceeded model token limit|prompt exceeds max length|range of input length",  # Moonshot, Zhipu, Qwen
            r"reduce the length of the (?:messages|prompt|input)",  # Groq
        ),
    ),
    (
        "content_policy",
        _words(
            r"content_policy_violation|content_filter|content[ _](?:management )?policy",
            r"safety[ _](?:system|filter|reason)",
            r"(?:responsible ai|usage) (?:policy|policies|guidelines)|guardrail|moderation|flagged",
            r"prohibited[ _]content|data_inspection_failed|inappropriate content|blocked (?:by|due|for)",
        ),
    ),
)

# An error without a status, by its code or type, and then by its sentence.
_BY_WORDS: tuple[tuple[FailureKind, re.Pattern[str]], ...] = (
    *_REFUSALS,
    ("rate_limit", _words(r"rate[ _-]?limit", r"too[ _]many[ _]requests", "quota", "resource_exhausted", "throttl")),
    ("timeout", _words(r"time[ds]?[ _-]?out", r"deadline[ _]exceeded")),
    ("auth", _words(r"api[ _]?key", "authenticat", "unauthori[sz]ed", r"permission[ _]?denied", "forbidden")),
    (
        "server",
        _words(
            *(
                "overloaded",
                "unavailable",
                r"internal[ _](?:server[ _])?error",
                r"server[ _]error",
                "upstream",
                "gateway",
            ),
            *("capacity", r"try again", r"provider (?:returned )?(?:an )?error", r"api_error", r"\binternal\b"),
        ),
    ),
    (
        "bad_request",
        _words(r"invalid[ _](?:request|argument|param)", r"bad[ _]request", r"not[ _]found", "unsupported"),
    ),
)

# LiteLLM wraps a message in the names of its classes: "litellm.RateLimitError: RateLimitError: OpenAIException - "
_WRAPPERS = re.compile(r"^(?:(?:litellm\.)?\w*(?:Error|Exception|Timeout)(?::| -) )+")
_STATUS = re.compile(r"^(?:Error code: \d{3}|\d{3})(?: -|:)? (?=[\[{<])")

_TRACEBACK = re.compile(r"\s*Traceback \(most recent call last\).*", re.DOTALL)
_PATH = re.compile(
    r"(?:File \"[^\"]*\", line \d+(?:, in \S+)?)|(?<![\w:/.])(?:/[\w.@+-]+){2,}/?|\b[A-Za-z]:\\[^\s\"']+"
)


def failure_of(error: Exception, *, model: str, secrets: Collection[str | None] = ()) -> ProviderError:
    """What went wrong, in our words and without secrets.

    Args:
        error: Of OpenAI's client, LiteLLM, or what their HTTP layers raise; its causes are looked through too.
        model: The model that was asked.
        secrets: What must not be shown, as `credentials_in` finds it.

    Returns:
        The failure, to be raised: its kind by the error's class, its status or its words, `retry_after_s` if it says
            so.
    """
    if (refusal := refusal_in(error)) is not None:
        return ProviderError(_without_secrets(str(refusal), secrets), kind=refusal.kind, model=model)
    return ProviderError(
        _without_secrets(message_of(error), secrets),
        kind=_kind(error),
        model=model,
        retry_after_s=_retry_after(error),
    )


def refusal_in(error: BaseException) -> UnwantedResponse | None:
    """The response that was not read, which an exception of a client tells of; None for any other exception."""
    return next((link for link in _chain(error) if isinstance(link, UnwantedResponse)), None)


def error_in(value: Any) -> Any:
    """The error that a body of status 200, or one of its choices, holds; None for `null` and for an empty one."""
    if not isinstance(value, Mapping):
        return None
    error = value.get("error")
    if isinstance(error, Mapping) and not any(error.values()):
        error = None
    if error is True or value.get("object") == "error":  # older vLLM, Mistral: the body is the error itself
        return value
    if error:
        return error
    if isinstance(message := value.get("message"), Mapping) and message.get("error"):  # of a choice
        return message["error"]
    said = value.get("base_resp")  # MiniMax, beside answers too
    if isinstance(said, Mapping) and str(said.get("status_code") or 0) != "0":
        return {"code": said["status_code"], "message": said.get("status_msg")}
    if str(value.get("error_code") or 0) != "0":  # Baidu
        return {"code": value["error_code"], "message": value.get("error_msg") or value.get("message")}
    if any(value.get(name) for name in _ANSWERS) or isinstance(message, Mapping):
        return None
    return value if value.get("errors") or value.get("detail") or value.get("status") == "error" else None


_ANSWERS = (
    "choices",
    "candidates",
    "content",
    "output",
    "outputs",
    "response",
    "results",
    "generations",
    "text",
    "delta",
)


def failure_from(
    error: Any,
    *,
    model: str,
    secrets: Collection[str | None] = (),
    usage: Usage | None = None,
    cost: float | None = None,
) -> ProviderError:
    """The failure that an error in a body of status 200 is, by its code, else by its words.

    Args:
        error: As it stands in the body: an object, a list or a text.
        model: The model that was asked.
        secrets: What must not be shown, as `credentials_in` finds it.
        usage: Tokens that the call used, as far as known.
        cost: Dollars of `usage`; None when unknown.

    Returns:
        The failure, to be raised; of the kind `invalid_response` when nothing says more.
    """
    message = _without_secrets(reason_in(error) or "an error without a word", secrets)
    return ProviderError(message, kind=_kind_in(error), model=model, usage=usage, cost=cost)


def message_of(error: Exception) -> str:
    """An exception's reason in one line, out of whatever form the server gave it."""
    for link in _chain(error):
        body = getattr(link, "body", None)
        if body and (reason := reason_in(body)):
            return reason
    said = str(getattr(error, "message", "") or error)
    return reason_in(said) or type(error).__name__


def reason_in(said: Any) -> str:
    """The sentence in an error: of an object, a list, JSON or a web page as text, or a text."""
    if isinstance(said, str):
        return _reason_in_text(said)
    if isinstance(said, Mapping):
        for name in ("message", "error", "detail", "errors", "error_description", "msg", "reason", "title"):
            if reason := reason_in(said.get(name)):
                where = said.get("loc")  # FastAPI's: which field, then what is wrong with it
                return f"{'.'.join(map(str, where))}: {reason}" if name == "msg" and isinstance(where, list) else reason
        return ", ".join(f"{name}: {value}" for name, value in said.items() if isinstance(value, str | int))[:500]
    if isinstance(said, list | tuple):
        return "; ".join(filter(None, map(reason_in, said[:10])))
    return "" if said is None or isinstance(said, bool) else str(said)


def _reason_in_text(said: str) -> str:
    said = _TRACEBACK.sub("", said[:10_000]).strip()
    bare = _STATUS.sub("", _WRAPPERS.sub("", said)).strip()
    if bare[:1] in ("{", "["):
        for read in (json.loads, ast.literal_eval):  # a server's JSON; what Python prints of it
            try:
                value = read(bare)
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
            if isinstance(value, dict | list) and (reason := reason_in(value)):
                return reason
    if re.match(r"<(?:!doctype|html|\?xml|head|body)", bare, re.IGNORECASE):
        title = re.search(r"<(title|h1)[^>]*>(.*?)</\1>", bare, re.IGNORECASE | re.DOTALL)
        return " ".join(unescape(title[2]).split()) if title else "a web page"
    return said


def _kind_in(error: Any) -> FailureKind:
    """By a status, wherever it stands; else by words."""
    if isinstance(error, Mapping):
        for name in ("code", "status", "status_code", "http_code", "http_status"):
            status = _as_status(error.get(name))
            if status is not None:
                return _kind_by_status(status, f"{error.get('type', '')} {reason_in(error)}")
        inner = error.get("error")
        if isinstance(inner, Mapping):
            return _kind_in(inner)
        words = " ".join(str(error.get(name) or "") for name in ("code", "type", "status"))
        said = f"{words} {reason_in(error)}"
    else:
        said = reason_in(error)
    return next((kind for kind, pattern in _BY_WORDS if pattern.search(said)), "invalid_response")


def _as_status(value: Any) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and 400 <= int(text[:4]) <= 599 else None


def _kind_by_status(status: int, said: str) -> FailureKind:
    known: dict[int, FailureKind] = {401: "auth", 403: "auth", 408: "timeout", 429: "rate_limit"}
    return _refined(known.get(status) or ("server" if status >= 500 else "bad_request"), status, said)


def _refined(kind: FailureKind, status: int | None, said: str) -> FailureKind:
    """What a request was not taken for, by words: of a 400 and its like, of a 403, and of a 500 if it is too long."""
    able = {"bad_request": ("context_window", "content_policy"), "auth": ("content_policy",) if status == 403 else ()}
    if status == 500:
        able["server"] = ("context_window",)
    return next((better for better, words in _REFUSALS if better in able.get(kind, ()) and words.search(said)), kind)


def _without_secrets(text: str, secrets: Collection[str | None]) -> str:
    """The message for a log: no key of this provider or of the environment, no wrappers, not endless."""
    text = masked(" ".join(without_halves(text[:10_000]).split()), secrets)
    return without_places(_WRAPPERS.sub("", text))[:500]


def without_places(text: str) -> str:
    """A message without a traceback, and without the paths of this machine that stand in one."""
    cut = _TRACEBACK.sub("", text)
    bare = _PATH.sub(lambda found: "..." if _is_ours(found[0]) else found[0], cut)
    return bare.strip() or "no reason was given"


def _is_ours(path: str) -> bool:
    """A place on this machine, not the path of an address or a unit such as `tokens/min/model`."""
    if path.startswith("File ") or "site-packages" in path or path[1:3] == ":\\":
        return True
    return Path(path.rstrip(".,:;")).exists()


def _kind(error: Exception) -> FailureKind:
    kind = next((_KINDS[base.__name__] for base in type(error).__mro__ if base.__name__ in _KINDS), None)
    status = getattr(error, "status_code", None)
    code = getattr(error, "code", None)
    if status is None and (found := _as_status(code)) is not None:
        status, kind = found, None  # an error object in a stream has no status of its own
    said = f"{code or ''} {getattr(error, 'type', None) or ''} {message_of(error)} {error}"[:10_000]
    if kind is None and isinstance(status, int):
        kind = _kind_by_status(status, said)
    if kind is not None and (kind := _refined(kind, status, said)) not in ("server", "connection"):
        return kind
    inner = {base.__name__ for link in _chain(error) for base in type(link).__mro__}
    if kind is None or kind == "server":
        # LiteLLM calls a lost connection and an unreadable body a 500; what it caught tells them apart.
        unreadable = inner & {"JSONDecodeError", "UnicodeDecodeError"}
        if unreadable or "Empty or invalid response from LLM endpoint" in str(error):
            return "invalid_response"
        if inner & {"APIConnectionError", "TransportError"}:
            return "connection"
        if "missing credentials" in str(error).lower() or "api_key client option must be set" in str(error):
            return "auth"  # the OpenAI client's plain error for a missing key, by its two wordings
    if kind is None and getattr(error, "body", None):
        return _kind_in(error.body)  # type: ignore[attr-defined]
    return kind or "invalid_response"


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _retry_after(error: Exception) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3), in either of its forms."""
    for headers in (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    ):
        value = str((headers or {}).get("retry-after", ""))
        try:
            return max(0.0, float(value))
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, TypeError):
            continue
    return None

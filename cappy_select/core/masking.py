"""No credential in a text that is shown, logged or stored: not in another encoding, and not in part.

A server may put what it was sent into its error: as it is, escaped for an address, in the base64 of HTTP Basic, cut
off. So a credential is looked for by all its pieces of `_PIECE` characters, in each of these forms.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MASK = "***"
_SHORTEST = 8  # characters of a credential; a shorter one is a placeholder, and would mask parts of words
_PIECE = 12
_LONGEST = 20_000  # characters of one credential that are looked for

_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")

# Names of variables, arguments and headers that hold a credential.
_NAMED_SO = re.compile(
    r"(?:pass(?:word|wd|phrase)|secret|token|credential|api_?key|private_key)|(?:^|_)(?:keys?|auth\w*|pwd|bearer|jwt)(?:_|$)"
)
# Headers that say nothing secret; of any other the value may be a credential.
_OPEN_HEADERS = frozenset(
    {
        *("accept", "accept-encoding", "accept-language", "content-type", "user-agent", "referer", "http-referer"),
        *("x-title", "anthropic-version", "anthropic-beta", "openai-beta", "openai-organization", "openai-project"),
    }
)
_HEADERS = frozenset({"headers", "extra_headers", "default_headers"})
_QUERIES = frozenset({"extra_query", "default_query"})
_OPEN_QUERIES = frozenset({"api-version", "api_version"})
_SCHEME = re.compile(r"(?:bearer|basic|token|key|apikey) +", re.IGNORECASE)

# What looks like a key, whoever's it is.
_KEY_LIKE = re.compile(
    r"\b(?:sk|pk|rk|xai)-[\w*.-]{8,}"
    r"|\b(?:gsk|hf|ghp|gho|ghs|r8|nvapi|pplx|fw|key)[_-][A-Za-z0-9_-]{16,}"
    r"|\bAIza[\w-]{20,}|\bA[KS]IA[0-9A-Z]{12,}|\bya29\.[\w.-]{20,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}[\w.-]*"
    r"|(?<=bearer )[^\s\"']{8,}|(?<=basic )[A-Za-z0-9+/=_-]{12,}"
    r"|(?<=[?&]key=)[^&\s\"']{8,}|(?<=api_key=)[^&\s\"']{8,}|(?<=token=)[^&\s\"']{8,}",
    re.IGNORECASE,
)


def masked(text: str, secrets: Collection[str | None] = ()) -> str:
    """A text with `***` for each of the secrets, for the credentials of the environment, and for what looks like one.

    Args:
        text: Any; the time is linear in its length.
        secrets: As `credentials_in` finds them; None and short ones are passed over.

    Returns:
        The text. A secret is also found in part (any 12 characters of it), escaped for an address or JSON, or in
        base64.
    """
    known = frozenset(
        secret[:_LONGEST] for secret in (*secrets, *_environments()) if secret and len(secret) >= _SHORTEST
    )
    short, pieces = _searched(known)
    lower = text.translate(_LOWER)
    hidden = bytearray(len(text))
    for form in short:
        at = lower.find(form)
        while at >= 0:
            hidden[at : at + len(form)] = b"\1" * len(form)
            at = lower.find(form, at + 1)
    for at in range(len(lower) - _PIECE + 1):
        if lower[at : at + _PIECE] in pieces:
            hidden[at : at + _PIECE] = b"\1" * _PIECE
    return _KEY_LIKE.sub(MASK, "".join(_shown(text, hidden)))


def credentials_in(*values: Any, **named: Any) -> frozenset[str]:
    """What of a provider's settings must not be shown.

    Args:
        values: Credentials as they are, such as a key; None is passed over.
        named: Settings by name: an address may have a password or a key in it, headers are credentials but for some,
            and so is everything whose name says so (`aws_secret_access_key`, `vertex_credentials`).

    Returns:
        The credentials, to be given to `masked`. Those of less than 8 characters are taken for placeholders and left
        out.
    """
    found = [value for value in values if isinstance(value, str)]
    for name, value in named.items():
        found += _under(name, value)
    return frozenset(secret for secret in found if len(secret) >= _SHORTEST)


def _under(name: str, value: Any) -> Iterator[str]:
    if name in _HEADERS and isinstance(value, Mapping):
        for header, content in value.items():
            if str(header).lower() not in _OPEN_HEADERS and isinstance(content, str):
                yield content
                yield _SCHEME.sub("", content)
                yield from _of_basic(content)
    elif name in _QUERIES and isinstance(value, Mapping):
        yield from (str(content) for query, content in value.items() if str(query).lower() not in _OPEN_QUERIES)
    elif isinstance(value, Mapping):
        for inner, content in value.items():
            yield from _under(str(inner), content)
    elif isinstance(value, list | tuple):
        for content in value:
            yield from _under(name, content)
    elif isinstance(value, str):
        if "://" in value:
            yield from _in_address(value)
        elif _NAMED_SO.search(name.lower()):
            yield from _in_value(value)


def _of_basic(header: str) -> Iterator[str]:
    """Of `Basic ...` what it encodes, and the password alone."""
    scheme, _, coded = header.partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            pair = base64.b64decode(coded.strip(), validate=True).decode()
            yield from (pair, pair.partition(":")[2])


def _in_value(value: str) -> Iterator[str]:
    """Of a credential that is itself JSON (a service account) only its secret parts."""
    try:
        read = json.loads(value) if value.lstrip()[:1] == "{" else None
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        yield value
        return
    for name, part in read.items():
        if isinstance(part, str) and _NAMED_SO.search(str(name).lower()):
            yield part


def _in_address(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address)
        given = [parts.password, *(value for _, value in parse_qsl(parts.query, max_num_fields=50))]
        if parts.username and parts.password is None:
            given.append(parts.username)
    except ValueError:
        return
    yield from (unquote(value) for value in given if value)


def _environments() -> Iterable[str]:
    for name, value in os.environ.items():
        if "://" in value:
            yield from (found for found in _in_address(value) if _is_no_word(found))
        elif _NAMED_SO.search(name.lower()) and not os.path.isabs(value) and not value.startswith(("~", "./", "../")):
            yield from (found for found in _in_value(value) if _is_no_word(found))


def _is_no_word(value: str) -> bool:
    """Not a setting such as `production` or `2000000`, which would be masked wherever it is said."""
    if value.isdecimal() or " " in value.strip():
        return len(value) >= 16
    return len(value) >= 16 or not (value.isalpha() and (value.islower() or value.isupper() or value.istitle()))


@lru_cache(256)
def _searched(secrets: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The forms that are looked for whole, for they are short; and the pieces of the longer ones."""
    forms = {form.translate(_LOWER) for secret in secrets for form in _forms(secret)}
    pieces = {form[at : at + _PIECE] for form in forms for at in range(len(form) - _PIECE + 1)}
    return frozenset(form for form in forms if _SHORTEST <= len(form) < _PIECE), frozenset(pieces)


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="", errors="replace")
    yield quote(secret, safe="/", errors="replace")
    yield json.dumps(secret)[1:-1]
    content = secret.encode(errors="replace")
    for before in range(3):  # bytes that may stand before it, as the user's name does
        coded = base64.b64encode(bytes(before) + content).decode()
        own = coded[-(-before * 8 // 6) : (before + len(content)) * 8 // 6]  # the characters of no other's bits
        yield own
        yield own.replace("+", "-").replace("/", "_")


def _shown(text: str, hidden: bytearray) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = hidden.find(b"\1" if not hidden[at] else b"\0", at)
        end = len(text) if end < 0 else end
        yield MASK if hidden[at] else text[at:end]
        at = end

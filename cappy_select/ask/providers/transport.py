"""What comes back over HTTP is read within bounds, and a redirect is not followed.

A call carries a key and a prompt: wherever a redirect points, neither was meant for it. A response may be endless,
or a few kilobytes that unpack to gigabytes, so its bytes are counted while they are read. Both are hooks of the
HTTP client, and work with httpx and httpx2 (which newer clients of OpenAI use) over any transport.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit

from cappy_select.core.types import FailureKind

MAX_BODY_BYTES = 32 * 2**20  # of one response, as it is sent and unpacked; the longest answers are a few megabytes

# A client makes an object of Python for each value of a body, and holds the event loop meanwhile: megabytes of brackets
# take it ten seconds. An object is dearer than a number. An answer with log-probabilities has many of both.
MAX_JSON_VALUES = 250_000
_WEIGHTS = {b",": 1, b"[": 1, b"{": 4}
_TIMES_WITH_LOGPROBS = 8

_PIECE_BYTES = 2**18  # unpacked between two turns of the event loop
_GZIP = zlib.MAX_WBITS + 16


class UnwantedResponse(Exception):
    """A response that is not read, or not to its end. The HTTP client and what stands on it pass it on wrapped.

    Args:
        message: What came, and what to do.
        kind: The failure that it is.
    """

    def __init__(self, message: str, kind: FailureKind) -> None:
        super().__init__(message)
        self.kind = kind


class Body:
    """The body of the last successful response of a call, unpacked, as it came; `whole` once it has ended."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.whole = False

    def begin(self) -> None:
        """Another response came: what was kept of the one before is dropped."""
        self._pieces, self.whole = [], False

    def add(self, piece: bytes) -> None:
        """More of it came."""
        self._pieces.append(piece)

    def read(self) -> bytes:
        """All that came."""
        return b"".join(self._pieces)


_kept: ContextVar[Body | None] = ContextVar("_kept", default=None)


@contextmanager
def kept_in(body: Body | None) -> Iterator[None]:
    """Within it, what guarded clients read is kept as well."""
    token = _kept.set(body)
    try:
        yield
    finally:
        _kept.reset(token)


def guard(client: Any) -> None:
    """Let an asynchronous client of httpx or httpx2 follow no redirect, and read no more than `MAX_BODY_BYTES`.

    Its calls fail with `UnwantedResponse`, which the client of a vendor may wrap.
    """
    client.follow_redirects = False
    hooks = client.event_hooks
    client.event_hooks = {
        "request": [*hooks.get("request", ()), _ask_for_gzip],
        "response": [_bound, *hooks.get("response", ())],
    }


async def _ask_for_gzip(request: Any) -> None:
    request.headers["Accept-Encoding"] = "gzip"  # what is unpacked here


async def _bound(response: Any) -> None:
    if 300 <= response.status_code < 400:
        raise UnwantedResponse(_redirect(response), "bad_request")
    given = response.headers.get("Content-Encoding", "").lower().split(",")  # several headers of a name are joined so
    encodings = [name for each in given if (name := each.strip()) not in ("", "identity")]
    if len(encodings) > 1 or not {"gzip", "x-gzip"}.issuperset(encodings):
        raise UnwantedResponse(
            f"the response is encoded as {', '.join(encodings)[:80]!r}: only gzip, once, was asked for",
            "invalid_response",
        )
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length[:20]) > MAX_BODY_BYTES:
        raise _too_long()
    if encodings:
        del response.headers["Content-Encoding"]  # or the client would unpack it again
        response.headers.pop("Content-Length", None)
    kind = next(base for base in type(response.stream).__mro__ if base.__name__ == "AsyncByteStream")
    values = None
    if not response.headers.get("Content-Type", "").startswith("text/event-stream"):  # those are many small bodies
        values = MAX_JSON_VALUES * (_TIMES_WITH_LOGPROBS if _asks_for_logprobs(response.request) else 1)
    body = _kept.get() if response.status_code < 300 else None
    response.stream = _bounded_as(kind)(response.stream, is_packed=bool(encodings), values=values, body=body)


def _asks_for_logprobs(request: Any) -> bool:
    try:
        return b'logprobs"' in request.content.lower()
    except Exception:  # a body that was streamed, of which the library keeps nothing
        return False


def _redirect(response: Any) -> str:
    try:
        target = urlsplit(urljoin(str(response.request.url), response.headers.get("Location", "")))
        host = target.hostname and f"{target.hostname}:{target.port}" if target.port else target.hostname
    except ValueError:
        host = None
    told = f"to {host[:200]!r} " if host and "Location" in response.headers else ""
    return (
        f"the server redirects {told}(status {response.status_code}), and a call with a key follows no redirect: "
        "give the address that answers as api_base"
    )


def _too_long() -> UnwantedResponse:
    return UnwantedResponse(
        f"the response is longer than {MAX_BODY_BYTES // 2**20} MiB, and was not read to its end", "invalid_response"
    )


class _Count:
    """The values of a JSON body, about: separators in its texts are counted too."""

    def __init__(self, most: int | None) -> None:
        self._left = most

    def add(self, data: bytes) -> None:
        if self._left is None:
            return
        self._left -= sum(weight * data.count(sign) for sign, weight in _WEIGHTS.items())
        if self._left < 0:
            raise UnwantedResponse(
                f"the response has more than {MAX_JSON_VALUES:,} values, and was not read to its end",
                "invalid_response",
            )


class _Bounded:
    """The bytes of a response, unpacked and counted, and kept in `body` if there is one."""

    def __init__(self, inner: Any, *, is_packed: bool, values: int | None, body: Body | None = None) -> None:
        self._inner, self._is_packed, self._count, self._body = inner, is_packed, _Count(values), body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._body is not None:
            self._body.begin()
        async for piece in self._unpacked():
            self._count.add(piece)
            if self._body is not None:
                self._body.add(piece)
            yield piece
        if self._body is not None:
            self._body.whole = True

    async def _unpacked(self) -> AsyncIterator[bytes]:
        sent = given = 0
        decoder = zlib.decompressobj(_GZIP) if self._is_packed else None
        async for data in self._inner:
            sent += len(data)
            if sent > MAX_BODY_BYTES:
                raise _too_long()
            if decoder is None:
                yield data
                continue
            while not decoder.eof:
                try:
                    piece = decoder.decompress(data, _PIECE_BYTES)
                except zlib.error:
                    raise UnwantedResponse("the response is not the gzip it says it is", "invalid_response") from None
                given += len(piece)
                if given > MAX_BODY_BYTES:
                    raise _too_long()
                if piece:
                    yield piece
                data = decoder.unconsumed_tail
                if len(piece) < _PIECE_BYTES and not data:
                    break
                await asyncio.sleep(0)  # other calls, and their deadlines

    async def aclose(self) -> None:
        await self._inner.aclose()


@cache
def _bounded_as(kind: type) -> Any:
    """As a stream of the library that made the response: it checks the type."""
    return type("_BoundedStream", (_Bounded, kind), {})

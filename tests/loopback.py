"""An OpenAI-compatible server on 127.0.0.1 that answers as it is told, and checks what it is asked."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from api_rules import violations_of


@dataclass(frozen=True)
class Reply:
    """What one call gets."""

    text: str | None = "ok"
    message: dict[str, Any] | None = None  # instead of `text`: the whole assistant message
    texts: tuple[str, ...] | None = None  # instead of `text`: several choices
    finish_reason: str = "stop"
    usage: dict[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 4})
    delay_s: float = 0.0  # before the first byte
    pieces_delay_s: float = 0.0  # between the pieces of a streamed answer
    status: int = 200
    error: str = "told to fail"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # sent as it is, with `status`
    content_type: str = "application/json"
    logprobs: list[float] | None = None  # of the answer's tokens
    hang_up: Literal["at once", "mid-body"] | None = None
    endless: bytes | None = None  # sent again and again until the client goes
    drip_s: float = 0.0  # between the bytes of the body
    more: tuple[Reply, ...] = ()  # further choices


class Loopback:
    """The server. `replies[model]` is consumed one a call; its last entry stays."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = defaultdict(lambda: [Reply()])
        self.answer: Callable[[dict[str, Any]], Reply] | None = None  # of the request, instead of `replies`
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.violations: list[str] = []
        self.billed = {"prompt_tokens": 0, "completion_tokens": 0}  # over all answers that were begun
        self.sent = 0  # bytes of endless bodies
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()
        self.gives_n = False  # one choice whatever `n`, as many servers do
        self.takes: frozenset[str] = frozenset()  # parameters beyond OpenAI's, as a server of one's own does
        self.lock = threading.Lock()
        self.base = ""
        self.connections = 0  # open ones

    def closed_within(self, seconds: float) -> bool:
        """Whether all connections are closed, or are so soon."""
        until = time.monotonic() + seconds
        while self.connections and time.monotonic() < until:
            time.sleep(0.01)
        return self.connections == 0

    def next_reply(self, request: dict[str, Any]) -> Reply:
        if self.answer is not None:
            return self.answer(request)
        with self.lock:
            queue = self.replies[request["model"]]
            return queue.pop(0) if len(queue) > 1 else queue[0]

    def reply_to(self, request: dict[str, Any]) -> Reply:
        first = self.next_reply(request)
        if not self.gives_n or first.texts is not None:
            return first
        more = tuple(self.next_reply(request) for _ in range(request.get("n", 1) - 1))
        if self.answer is None or first.usage is None:
            return replace(first, more=more)
        written = sum((reply.usage or {}).get("completion_tokens", 0) for reply in (first, *more))
        return replace(first, more=more, usage=first.usage | {"completion_tokens": written})

    def bill(self, reply: Reply) -> None:
        with self.lock:
            for name in self.billed:
                self.billed[name] += (reply.usage or {}).get(name, 0)

    def calls_to(self, model: str) -> int:
        return sum(request["model"] == model for request in self.requests)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Loopback

    def setup(self) -> None:
        super().setup()
        with self.state.lock:
            self.state.connections += 1

    def finish(self) -> None:
        with self.state.lock:
            self.state.connections -= 1
        super().finish()

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = violations_of(self.path, {k: v for k, v in request.items() if k not in self.state.takes})
        with self.state.lock:
            self.state.requests.append(request)
            self.state.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.state.keys.append((self.headers.get("Authorization") or "").removeprefix("Bearer "))
            self.state.violations += found
        if found:
            self._send(400, json.dumps({"error": {"message": "; ".join(found)}}).encode())
            return
        try:
            reply = self.state.reply_to(request)
        except Exception as error:  # of the test's own `answer`: not to be taken for a failure that is tested
            with self.state.lock:
                self.state.violations.append(f"no answer: {error!r}")
            self._send(500, json.dumps({"error": {"message": f"no answer: {error!r}"}}).encode())
            return
        if reply.delay_s and self.state.closing.wait(reply.delay_s):
            return
        if reply.hang_up == "at once":
            self.close_connection = True
            return
        if reply.status != 200 and reply.body is not None:
            self._send(reply.status, reply.body, {"Content-Type": reply.content_type} | reply.headers)
            return
        if reply.status != 200:
            error = {"message": reply.error, "type": "error", "param": None, "code": None}
            self._send(reply.status, json.dumps({"error": error}).encode(), reply.headers)
            return
        if reply.endless is not None:
            self._send_endless(reply)
            return
        if reply.body is None and not reply.drip_s:
            self.state.bill(reply)
            if request.get("stream"):
                self._stream(request, reply)
                return
        body = reply.body if reply.body is not None else json.dumps(completion(request["model"], reply)).encode()
        if reply.hang_up == "mid-body":
            self._send(200, body, {"Content-Type": reply.content_type}, length=len(body) + 100)
            self.close_connection = True
            return
        if reply.drip_s:
            self._drip(body, reply)
            return
        length = int(reply.headers.get("Content-Length", len(body)))
        headers = {name: value for name, value in reply.headers.items() if name != "Content-Length"}
        self._send(200, body, {"Content-Type": reply.content_type} | headers, length=length)

    def _drip(self, body: bytes, reply: Reply) -> None:
        self._send(200, body[:1], {"Content-Type": reply.content_type} | reply.headers, length=len(body))
        self.close_connection = True
        try:
            for place in range(1, len(body)):
                if self.state.closing.wait(reply.drip_s):
                    return
                self.wfile.write(body[place : place + 1])
        except OSError:  # the client cancelled and went away
            pass

    def _send_endless(self, reply: Reply) -> None:
        chunk = b"%x\r\n%b\r\n" % (len(reply.endless or b""), reply.endless)
        headers = {"Content-Type": reply.content_type, "Transfer-Encoding": "chunked"} | reply.headers
        self.close_connection = True
        try:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            while not self.state.closing.is_set():
                self.wfile.write(chunk)
                with self.state.lock:
                    self.state.sent += len(reply.endless or b"")
        except OSError:  # the client has read enough
            pass

    def _stream(self, request: dict[str, Any], reply: Reply) -> None:
        usage = bool((request.get("stream_options") or {}).get("include_usage"))
        events = [json.dumps(chunk) for chunk in chunks(request["model"], reply, include_usage=usage)] + ["[DONE]"]
        if reply.hang_up == "mid-body":
            events = events[: (len(events) - 1 - usage) // 2]  # never all that was to be said
            self.close_connection = True
        try:
            self.send_response(200)
            headers = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"}
            for name, value in (headers | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            for place, event in enumerate(events):
                if place and reply.pieces_delay_s and self.state.closing.wait(reply.pieces_delay_s):
                    return
                data = f"data: {event}\n\n".encode()
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            if reply.hang_up is None:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the client cancelled and went away
            self.close_connection = True

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client cancelled and went away
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def completion(model: str, reply: Reply) -> dict[str, Any]:
    usage = _usage(reply)
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {"index": index, "message": _message(choice), "finish_reason": choice.finish_reason}
            | _logprobs(choice.logprobs)
            for index, choice in enumerate(_choices(reply))
        ],
        **({"usage": usage} if usage else {}),
    }


def chunks(model: str, reply: Reply, *, include_usage: bool) -> Iterator[dict[str, Any]]:
    """The `chat.completion.chunk` objects of a streamed answer."""
    common = {"id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 1, "model": model}
    empty = {"usage": None} if include_usage else {}

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None, more: Any = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "finish_reason": reason} | (more or {})
        return common | {"choices": [choice]} | empty

    for index, choice in enumerate(_choices(reply)):
        message = _message(choice)
        calls = message.get("tool_calls") or ()
        text = message.get("content")
        yield chunk(index, {"role": "assistant", "content": None if calls and not text else ""})
        for name, value in message.items():
            if name in ("role", "tool_calls") or value is None:
                continue
            pieces = _words(value) if isinstance(value, str) else [value]
            said = _shares(choice.logprobs, len(pieces)) if name == "content" else [None] * len(pieces)
            for piece, logprobs in zip(pieces, said, strict=True):
                yield chunk(index, {name: piece}, more=_logprobs(logprobs))
        for place, call in enumerate(calls):
            function = call["function"]
            named = call | {"function": function | {"arguments": ""}}
            yield chunk(index, {"tool_calls": [{"index": place} | named]})
            for piece in re.findall(r"(?s).{1,7}", function.get("arguments", "")):
                yield chunk(index, {"tool_calls": [{"index": place, "function": {"arguments": piece}}]})
        yield chunk(index, {}, choice.finish_reason)
    if include_usage and (usage := _usage(reply)):
        yield common | {"choices": [], "usage": usage}


def _choices(reply: Reply) -> list[Reply]:
    if reply.texts is not None:
        return [replace(reply, text=text, texts=None) for text in reply.texts]
    return [reply, *reply.more]


def _message(reply: Reply) -> dict[str, Any]:
    return reply.message or {"role": "assistant", "content": reply.text}


def _usage(reply: Reply) -> dict[str, int] | None:
    return reply.usage and {**reply.usage, "total_tokens": sum(reply.usage.values())}


def _logprobs(values: list[float] | None) -> dict[str, Any]:
    if values is None:
        return {}
    tokens = [{"token": "t", "logprob": value, "bytes": None, "top_logprobs": []} for value in values]
    return {"logprobs": {"content": tokens, "refusal": None}}


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+", text)


def _shares(values: list[float] | None, pieces: int) -> list[list[float] | None]:
    """One value a piece, and what is left over for the last one."""
    if values is None:
        return [None] * pieces
    return [values[place : place + 1] if place < pieces - 1 else values[place:] for place in range(pieces)]


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the test."""


@contextmanager
def serve() -> Iterator[Loopback]:
    state = Loopback()
    server = _Server(("127.0.0.1", 0), type("_BoundHandler", (_Handler,), {"state": state}))
    state.base = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def answering(*bodies: bytes) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers any path, whatever it is asked, with one body after the other, the last one ever after.

    Gives its address and the requests it got.
    """
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = bodies[min(len(asked), len(bodies)) - 1]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()

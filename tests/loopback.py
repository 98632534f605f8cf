"""An OpenAI-compatible server on 127.0.0.1 that answers as it is told, and checks what it is asked."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

ROLES = {"system", "developer", "user", "assistant", "tool"}


@dataclass(frozen=True)
class Reply:
    """What one call gets."""

    text: str | None = "ok"
    message: dict[str, Any] | None = None  # instead of `text`: the whole assistant message
    texts: tuple[str, ...] | None = None  # instead of `text`: several choices
    finish_reason: str = "stop"
    usage: dict[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 4})
    delay_s: float = 0.0
    status: int = 200
    error: str = "told to fail"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # sent as it is, with status 200
    content_type: str = "application/json"
    logprobs: list[float] | None = None  # of the answer's tokens
    hang_up: Literal["at once", "mid-body"] | None = None


class Loopback:
    """The server. `replies[model]` is consumed one a call; its last entry stays."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = defaultdict(lambda: [Reply()])
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.violations: list[str] = []
        self.closing = threading.Event()
        self.gives_n = False  # one choice whatever `n`, as many servers do
        self.lock = threading.Lock()
        self.base = ""

    def next_reply(self, model: str) -> Reply:
        with self.lock:
            queue = self.replies[model]
            return queue.pop(0) if len(queue) > 1 else queue[0]

    def reply_to(self, request: dict[str, Any]) -> Reply:
        first = self.next_reply(request["model"])
        more = request.get("n", 1) - 1 if self.gives_n and first.texts is None else 0
        if not more:
            return first
        texts = [first.text or "", *(self.next_reply(request["model"]).text or "" for _ in range(more))]
        return replace(first, texts=tuple(texts))

    def calls_to(self, model: str) -> int:
        return sum(request["model"] == model for request in self.requests)


def violations_of(path: str, request: Any) -> list[str]:
    """What is wrong with a chat-completion request, by the public API reference."""
    if path != "/v1/chat/completions":
        return [f"path {path}"]
    if not isinstance(request, dict):
        return ["the body is no object"]
    found = [] if isinstance(request.get("model"), str) else ["no model"]
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        return [*found, "no messages"]
    found += [f"role {m.get('role')!r}" for m in messages if m.get("role") not in ROLES]
    known = {"model", "messages", "n", "temperature", "top_p", "max_tokens", "stop", "tools", "tool_choice", "seed"}
    known |= {"logprobs", "top_k", "min_tokens"}  # the last two are vLLM's
    return found + [f"unknown parameter {name!r}" for name in request if name not in known]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Loopback

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = violations_of(self.path, request)
        with self.state.lock:
            self.state.requests.append(request)
            self.state.keys.append((self.headers.get("Authorization") or "").removeprefix("Bearer "))
            self.state.violations += found
        if found:
            self._send(400, json.dumps({"error": {"message": "; ".join(found)}}).encode())
            return
        reply = self.state.reply_to(request)
        if reply.delay_s and self.state.closing.wait(reply.delay_s):
            return
        if reply.hang_up == "at once":
            self.close_connection = True
            return
        if reply.status != 200:
            error = {"message": reply.error, "type": "error", "param": None, "code": None}
            self._send(reply.status, json.dumps({"error": error}).encode(), reply.headers)
            return
        body = reply.body if reply.body is not None else json.dumps(completion(request["model"], reply)).encode()
        if reply.hang_up == "mid-body":
            self._send(200, body, {"Content-Type": reply.content_type}, length=len(body) + 100)
            self.close_connection = True
            return
        self._send(200, body, {"Content-Type": reply.content_type} | reply.headers)

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
    messages = [reply.message or {"role": "assistant", "content": reply.text}]
    if reply.texts is not None:
        messages = [{"role": "assistant", "content": text} for text in reply.texts]
    usage = reply.usage and {**reply.usage, "total_tokens": sum(reply.usage.values())}
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {"index": index, "message": message, "finish_reason": reply.finish_reason} | _logprobs(reply)
            for index, message in enumerate(messages)
        ],
        **({"usage": usage} if usage else {}),
    }


def _logprobs(reply: Reply) -> dict[str, Any]:
    if reply.logprobs is None:
        return {}
    tokens = [{"token": "t", "logprob": value, "bytes": None, "top_logprobs": []} for value in reply.logprobs]
    return {"logprobs": {"content": tokens, "refusal": None}}


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

"""`cappy demo`: the online line for real, without a key or a network.

A server on 127.0.0.1 plays three models (quick, slow, broken) behind the OpenAI protocol; everything else is
what production runs: LiteLLM over a socket, the fan-out, the embedded scorer.
"""

from __future__ import annotations

import json as jsonlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cappy_select.ask.providers import LiteLLMProvider, Provider
from cappy_select.cli.output import Json, new_app, note, print_json, print_table
from cappy_select.cli.select import as_json, print_selection
from cappy_select.scorer import Scorer
from cappy_select.select.selector import Selector

app = new_app()

PROMPT = (
    "Write a headline: The city council voted on Monday to close the old bridge for repairs until spring, so buses "
    "will take a longer way."
)
NEWS = (
    "What label best describes this news article?\n"
    "Oil prices rose two percent on Monday after producers agreed to extend their output cuts through the summer."
)
LABELS = ("World politics", "Sports", "Business", "Science and technology")

# Written for this demo. `broken` answers every call with a 500.
ANSWERS = {
    "quick": ("City council elections", "Buses are late", "Fine weather on Monday"),
    "slow": ("Old bridge to close for repairs until spring", "A longer way", "I am sorry, I cannot help with that."),
}
SLOW_S = 1.2
PRICES: dict[str, Any] = {"input_cost_per_token": 0.4e-6, "output_cost_per_token": 1.6e-6}


@app.command()
def demo(json: Json = False) -> None:
    """See the online line at work, without a key or a network."""
    if not json:
        note("starting a server with three models on 127.0.0.1; importing LiteLLM (about 2 s)")
    # A proxy can't reach this machine's own loopback.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    scorer = Scorer.load()
    with _server() as address:
        models: list[Provider] = [
            LiteLLMProvider(f"openai/{name}", api_key="demo", api_base=address, **PRICES)
            for name in ("quick", "slow", "broken")
        ]
        selection = Selector(models, samples=3, scorer=scorer, max_retries=1).select(PROMPT)
    ranked = scorer.rank(NEWS, LABELS)
    if json:
        ranking = [{"index": row.index, "response": row.response, "score": row.score} for row in ranked]
        print_json({"selection": as_json(selection), "classification": ranking})
        return
    print(f"\n1. Best of several models (their answers were written for this demo)\n\n{PROMPT}\n")
    print_selection(selection)
    print(f"\nbest: {selection.text}\nchosen by {selection.scorer} in {selection.latency_s:.2f} s\n")
    print(f"\n2. Classification: the labels are the candidates, no LLM is asked\n\n{NEWS}\n")
    print_table("", ("score", "label"), [(f"{row.score:.3f}", row.response) for row in ranked], right=(0,))


class _Handler(BaseHTTPRequestHandler):
    """The part of `POST /chat/completions` that the demo needs."""

    protocol_version = "HTTP/1.1"
    asked: Counter[str]
    lock: threading.Lock

    def do_POST(self) -> None:
        request = jsonlib.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = request["model"]
        if name not in ANSWERS:
            self._reply(500, {"error": {"message": "this model is broken on purpose", "type": "server_error"}})
            return
        if name == "slow":
            time.sleep(SLOW_S)
        with self.lock:
            first, n = self.asked[name], request.get("n", 1)
            self.asked[name] += n
        answers = [ANSWERS[name][number % len(ANSWERS[name])] for number in range(first, first + n)]
        usage = {"prompt_tokens": len(PROMPT) // 4, "completion_tokens": sum(len(text) // 4 + 1 for text in answers)}
        self._reply(
            200,
            {
                "id": "chatcmpl-demo",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": name,
                "choices": [
                    {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                    for index, text in enumerate(answers)
                ],
                "usage": usage | {"total_tokens": sum(usage.values())},
            },
        )

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        payload = jsonlib.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: Any) -> None:
        """Requests are shown in the table, not here."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # the default of 5 drops connections of a fan-out, which come back a second later
    daemon_threads = True


@contextmanager
def _server() -> Iterator[str]:
    handler = type("_DemoHandler", (_Handler,), {"asked": Counter(), "lock": threading.Lock()})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

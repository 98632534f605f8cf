"""Everything a provider can do wrong, to one of three models, to two, to all: the right winner or the typed error."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from pathlib import Path

import pytest
from loopback import Reply, completion

from cappy_select import NoCandidates, Selector

pytestmark = pytest.mark.usefixtures("no_leaks")

DEADLINE_S = 2.0
GOOD = "The Marañón and the Ucayali."
HUGE = json.dumps(completion("m", Reply(text="river " * 3_500_000))).encode()  # 20 MB

GZIP = {"Content-Encoding": "gzip"}
BOMB = gzip.compress(json.dumps(completion("m", Reply(text="a" * 2**26))).encode())  # 64 MiB unpacked
BRACKETS = b'{"choices": [' + b"[]," * 10**6 + b"[]]}"

# What it does, and the failure's kind (or, of an answer that arrives and can't be used, the reason).
FAULTS = {
    "delay": (Reply(text=GOOD, delay_s=0.4), None),
    "hang": (Reply(delay_s=60), "timeout"),
    "429 with Retry-After": (Reply(status=429, headers={"Retry-After": "0.2"}), "rate_limit"),
    "429 with a Retry-After beyond the deadline": (Reply(status=429, headers={"Retry-After": "60"}), "rate_limit"),
    "429 without": (Reply(status=429), "rate_limit"),
    "500": (Reply(status=500), "server"),
    "401": (Reply(status=401), "auth"),
    "connection closed": (Reply(hang_up="at once"), "connection"),
    "connection closed mid-body": (Reply(hang_up="mid-body"), "connection"),
    "invalid JSON": (Reply(body=b'{"choices": [{"mess'), "invalid_response"),
    "empty text": (Reply(text=""), "empty answer"),
    "unseen text": (Reply(text="\u200b\ufeff"), "empty answer"),
    "an error in a 200": (Reply(body=b'{"error": {"message": "slow down", "code": 429}}'), "rate_limit"),
    "a gateway's error in a 200": (Reply(body=b'{"error": {"message": "upstream lost", "code": 502}}'), "server"),
    "blocked, in Gemini's words": (Reply(text="The Marañ", finish_reason="SAFETY"), "refused: "),
    "filtered, with its reason": (Reply(text="The Marañ", finish_reason="content_filter: RECITATION"), "refused: "),
    "an error as an answer": (Reply(text="upstream connect error", finish_reason="error"), "failed: error"),
    "cut off, in Gemini's words": (Reply(text="The Marañ", finish_reason="MAX_TOKENS"), "cut off: "),
    "cut off, in Anthropic's words": (Reply(text="The Marañ", finish_reason="pause_turn"), "cut off: "),
    "stopped, in vLLM's words": (Reply(text="The Marañ", finish_reason="abort"), "failed: abort"),
    "wrong content type": (Reply(body=b"<html>sign in</html>", content_type="text/html"), "invalid_response"),
    "20 MB body": (Reply(body=HUGE), "too long"),
    "gzip": (Reply(body=gzip.compress(json.dumps(completion("m", Reply(text=GOOD))).encode()), headers=GZIP), None),
    "a body in drops": (Reply(text=GOOD, drip_s=0.2), "timeout"),
    "a body without an end": (Reply(endless=b"a" * 2**16), "invalid_response"),
    "a packed body without an end": (Reply(endless=b"a" * 2**16, headers=GZIP), "invalid_response"),
    "a gzip bomb": (Reply(body=BOMB, headers=GZIP), "invalid_response"),
    "packed twice": (Reply(body=b"", headers={"Content-Encoding": "gzip, gzip"}), "invalid_response"),
    "packed as nobody asked": (Reply(body=b"", headers={"Content-Encoding": "br"}), "invalid_response"),
    "a million brackets": (Reply(body=BRACKETS), "invalid_response"),
    "a redirect": (Reply(status=307, headers={"Location": "http://127.0.0.1:9/v1?q=1"}), "bad_request"),
    "a redirect to nowhere": (Reply(status=302), "bad_request"),
}
RETRIED = {"rate_limit", "server", "connection"}


def no_opinion(pairs):
    """The first usable answer in request order wins."""
    return [0.0] * len(pairs)


@pytest.mark.parametrize("client", ["openai", "litellm"])
@pytest.mark.parametrize("faulty", [1, 2, 3])
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_right_winner_or_the_typed_error_in_time(fault, faulty, client, loopback, provider, direct):
    reply, kind = FAULTS[fault]
    names = ["a", "b", "c"]
    for name in names:
        loopback.replies[name] = [reply if name in names[:faulty] else Reply(text=GOOD)]
    make = direct if client == "openai" else provider
    models = [make(name) for name in names]
    selector = Selector(models, samples=1, scorer=no_opinion, deadline_s=DEADLINE_S, cool_down_after=99)
    threads = threading.active_count()
    started = time.perf_counter()
    selection, error = None, None
    try:
        selection = await selector.aselect("Which two rivers meet near Nauta?")
    except NoCandidates as raised:
        error = raised
    assert time.perf_counter() - started < 3 * DEADLINE_S

    if kind is None or faulty < 3:
        assert selection is not None, error
        assert selection.text == GOOD
        assert selection.best.model == models[0 if kind is None else faulty].model  # the first that is well
        reasons = [(f.model, f.kind) for f in selection.failures]
        reasons += [(c.model, c.rejected) for c in selection.candidates if c.rejected]
    else:
        said = {"invalid_response", "content_policy"}  # kinds of answers that came and can't be used
        reasons = [(e.model, e.message if e.kind in said else e.kind) for e in error.exceptions]
    expected = [] if kind is None else [model.model for model in models[:faulty]]
    assert sorted(model for model, _ in reasons) == expected
    if kind not in (None, "invalid_response"):
        assert all(reason.startswith(kind) for _, reason in reasons), reasons
    tries = 3 if kind in RETRIED and "beyond" not in fault else 1
    assert [loopback.calls_to(name) for name in names] == [tries] * faulty + [1] * (3 - faulty)

    if client == "openai":
        for model in models:
            await model.aclose()
        assert established(loopback) == 0
    else:  # LiteLLM keeps its connections for the next call; those of calls cut off must not be among them
        assert established(loopback) <= 3 - faulty * (kind == "timeout")
    await asyncio.sleep(0)
    ours = [t for t in threading.enumerate() if "process_request_thread" not in t.name]
    assert len(ours) <= threads + 4  # workers of event loop and policies, which stay


def established(loopback) -> int:
    """Connections of this process to the server that are open on the client's side (proc(5))."""
    port = int(loopback.base.rsplit(":", 1)[1].split("/")[0])
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [(line.split()[2], line.split()[3]) for line in lines]
    return sum(int(remote.split(":")[1], 16) == port and state == "01" for remote, state in ends)

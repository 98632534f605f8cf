"""The library's log, under the name `cappy_select`: events, never a key or a text."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from loopback import Reply

from cappy_select import NoCandidates, Selector

KEY = "sk-secret-1234"


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, "cappy_select")
    return caplog


def events(log):
    return [(record.levelname, record.getMessage()) for record in log.records if record.name.startswith("cappy_select")]


def test_a_retry_is_logged(direct, loopback, tiny, log):
    loopback.replies["m"] = [Reply(status=503, error="the prompt was: a riddle"), Reply(text="an answer")]
    Selector([direct("m")], samples=1, scorer=tiny).select("a riddle")
    ((level, said),) = events(log)
    assert level == "INFO"
    assert said.startswith("m: server, asked again in ")
    assert said.endswith("(retry 1 of 2)")


def test_a_breaker_that_opens_and_closes_is_logged(direct, loopback, tiny, log):
    loopback.replies["down"] = [Reply(status=500), Reply(text="back")]
    models = [direct("down"), direct("up")]
    selector = Selector(models, samples=1, scorer=tiny, max_retries=0, cool_down_after=1, cool_down_s=0.0)
    selector.select("a riddle")
    selector.select("a riddle")
    assert events(log) == [
        ("WARNING", "down: left alone for 0 s: it failed 1 times in a row, last with server"),
        ("INFO", "down: it answers again, and is asked as before"),
    ]


def test_what_a_model_can_not_be_asked_for_is_logged_once(loopback, tmp_path, tiny, log):
    file = tmp_path / "answers.jsonl"
    file.write_text('{"id": "1", "instruction": "hi", "candidates": [{"model": "m", "response": "ho"}]}\n')
    plan = {"samplings": [{"temperature": 0.7}], "on_unsupported": "downgrade"}
    selector = Selector([f"replay:{file}"], plan=plan, scorer=tiny)
    for _ in range(2):
        assert selector.select("hi").downgrades
    assert events(log) == [("INFO", "replay:answers.jsonl: asked without temperature, which it does not take")]


def test_neither_a_key_nor_a_text_is_logged(direct, loopback, provider, tiny, log):
    loopback.replies["m"] = [Reply(status=429, error=f"{KEY} asked: a riddle")]
    loopback.replies["n"] = [Reply(status=401, error=f"wrong key {KEY}")]
    selector = Selector([direct("m"), provider("n")], samples=1, scorer=tiny, max_retries=1, cool_down_after=1)
    with pytest.raises(NoCandidates):
        selector.select("a riddle")
    said = " ".join(message for _, message in events(log))
    assert "rate_limit" in said
    assert KEY not in said
    assert "riddle" not in said


def test_the_library_adds_no_handler():
    script = "import logging, cappy_select; print(logging.getLogger('cappy_select').handlers, logging.root.handlers)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"

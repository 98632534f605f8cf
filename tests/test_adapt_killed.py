"""`cappy adapt` killed in each stage: run again it makes the same scorer, and asks for nothing that is stored."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter

import pytest
from adapting import QUICK, answering, command, environment, instances, plan, right_answers, run, toy_scorer

SAMPLES, CONCURRENCY = 3, 4
SETTINGS = (*QUICK, "save_every=10")


def lines(file):
    return len(file.read_text().splitlines()) if file.is_file() else 0


def stored(out):
    import sqlite3

    if not (out / "samples.db").is_file():
        return 0
    try:
        with sqlite3.connect(f"file:{out / 'samples.db'}?mode=ro", uri=True) as db:
            return db.execute("SELECT count(*) FROM samples").fetchone()[0]
    except sqlite3.Error:  # not made yet
        return 0


STAGES = {
    "sampling": lambda out: stored(out) > 60,
    "pairs": lambda out: (out / "pairs/.work").is_dir(),
    "tokens": lambda out: (out / "training/run.json").is_file(),
    "training": lambda out: lines(out / "training/log.jsonl") > 45,
    "export": lambda out: (out / "training/model").is_dir(),
    "report": lambda out: (out / "bundle/manifest.json").is_file(),
}


@pytest.mark.slow
def test_killed_in_each_stage_it_makes_the_same_scorer_and_asks_for_nothing_again(tmp_path, loopback):
    file = instances(tmp_path / "kinds.jsonl", 120)
    answering(loopback, right_answers(file), delay_s=0.02)
    toy = toy_scorer(tmp_path / "toy")
    asked = (
        file, "-m", "openai/llm", "--api-base", loopback.base, "--plan", plan(tmp_path / "plan.json", SAMPLES),
        "--label", "exact", "--scorer", toy, "--held-out", "0.35", "--concurrency", str(CONCURRENCY), "--json",
    )  # fmt: skip
    whole = run(tmp_path / "whole", *asked, settings=SETTINGS)
    assert whole.returncode == 0, whole.stderr
    loopback.requests.clear()

    out = tmp_path / "out"
    hit = []
    for stage, begun in STAGES.items():
        child = subprocess.Popen(
            command(out, *asked, settings=SETTINGS),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
        deadline = time.monotonic() + 200
        while child.poll() is None and not begun(out):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        hit.append((stage, child.returncode == -signal.SIGKILL))
    assert all(killed for _, killed in hit), hit
    done = run(out, *asked, settings=SETTINGS)
    assert done.returncode == 0, done.stderr

    assert json.loads(done.stdout) == json.loads(whole.stdout)
    for name in ("bundle/model.onnx", "report/report.md", "examples/train.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # Only the calls that were in flight at the one kill amid the sampling were made twice.
    times = Counter((request["messages"][-1]["content"], request["seed"]) for request in loopback.requests)
    assert len(times) == 120 * SAMPLES
    assert sum(count - 1 for count in times.values()) <= CONCURRENCY

"""`cappy sample` is killed for good, again and again: nothing stored is lost or asked for twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

import pytest
from loopback import Reply

from cappy_select.data.formats import Problems
from cappy_select.data.instances import read_instances
from cappy_select.data.store import SampleStore

CONCURRENCY = 8


@pytest.mark.parametrize(
    ("instances", "kills"),
    [(60, 4), pytest.param(500, 20, marks=[pytest.mark.slow, pytest.mark.long])],
    ids=["240", "2000"],
)
def test_a_kill_costs_at_most_the_calls_in_flight(loopback, tmp_path, instances, kills):
    samples, draw = 4 * instances, random.Random(kills)
    rows = [
        {"id": str(number), "task": "t", "instruction": f"What is {number} + 1?", "references": [str(number + 1)]}
        for number in range(instances)
    ]
    file, store = tmp_path / "instances.jsonl", tmp_path / "samples.db"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    delay = 60 * CONCURRENCY / samples  # a run alone would take a minute, and a kill in the middle costs little
    loopback.replies["m"] = [Reply(text="an answer", delay_s=min(0.1, delay))]
    command = [sys.executable, "-m", "cappy_select", "sample", file, "--store", store, "-m", "openai:m", "-n", "4"]
    command += ["--api-base", loopback.base, "--concurrency", str(CONCURRENCY)]
    environment = os.environ | {"OPENAI_API_KEY": "k"}

    def stored() -> int:
        if not store.exists():
            return 0
        with SampleStore(store) as reader:
            return sum(reader.counts().values())

    lost = 0
    for _ in range(kills):
        seen = len(loopback.requests)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(loopback.requests) == seen and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.6))
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.wait()
        time.sleep(0.3)  # for what was on its way to the server
        lost_now = len(loopback.requests) - stored()
        assert lost_now - lost <= CONCURRENCY
        lost = lost_now

    loopback.replies["m"] = [Reply(text="an answer")]
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stored"] == {"m": samples}
    assert len(loopback.requests) == samples + lost
    assert lost > 0, "no kill hit a call in flight: the test shows nothing"
    with SampleStore(store) as reader:
        for _, instance in read_instances(file, Problems()):
            assert [found.sample.response for found in reader.samples(instance)] == ["an answer"] * 4

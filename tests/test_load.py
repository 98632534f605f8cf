"""Many selections at once: nothing is lost, the bill is exact, memory stays flat."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[1] / "benchmarks" / "loopback_server.py"

SCRIPT = textwrap.dedent("""
    import asyncio, gc, json, re, sys, urllib.request
    from cappy_select import OpenAIProvider, Selector

    base, selections, waves = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    prices = {"input_cost_per_token": 1.1e-6, "output_cost_per_token": 2.3e-6}
    models = [OpenAIProvider(name, api_base=base, api_key="none", **prices) for name in ("several", "one")]
    selector = Selector(models, samples=10, scorer=lambda pairs: [0.5] * len(pairs), deadline_s=300)

    def rss():
        return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read()).group(1))

    async def main():
        memory, objects = [], []
        total = {"answers": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost": 0.0, "failures": 0}
        for _ in range(waves):
            found = await asyncio.gather(*(selector.aselect(f"question {n}") for n in range(selections)))
            for selection in found:
                total["answers"] += len(selection.candidates)
                total["prompt_tokens"] += selection.usage.prompt_tokens
                total["completion_tokens"] += selection.usage.completion_tokens
                total["cost"] += selection.cost
                total["failures"] += len(selection.failures)
                assert sorted(c.index for c in selection.candidates) == list(range(20))
            del found, selection
            await asyncio.sleep(0.1)
            gc.collect()
            memory.append(rss())
            objects.append(len(gc.get_objects()))
        for model in models:
            await model.aclose()
        print(json.dumps({"memory": memory, "objects": objects, "tasks": len(asyncio.all_tasks())} | total))

    asyncio.run(main())
    tally = urllib.request.urlopen(base.removesuffix("/v1") + "/tally").read()
    print(tally.decode())
""")


@pytest.mark.parametrize(
    ("selections", "waves"),
    [(25, 4), pytest.param(500, 3, marks=[pytest.mark.slow, pytest.mark.long], id="10,000 candidates a wave")],
)
def test_nothing_is_lost_and_the_bill_is_exact(selections, waves):
    server = subprocess.Popen([sys.executable, SERVER], stdout=subprocess.PIPE, text=True)
    try:
        base = server.stdout.readline().strip()
        command = [sys.executable, "-c", SCRIPT, base, str(selections), str(waves)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    finally:
        server.kill()
        server.wait()
    assert done.returncode == 0, done.stderr
    found, tally = map(json.loads, done.stdout.splitlines())
    assert found["answers"] == tally["answers"] == selections * waves * 20
    assert found["failures"] == 0
    for name in ("prompt_tokens", "completion_tokens"):
        assert found[name] == tally[name]
    owed = tally["prompt_tokens"] * 1.1e-6 + tally["completion_tokens"] * 2.3e-6
    assert found["cost"] == pytest.approx(owed, rel=1e-12)
    assert found["memory"][-1] <= 1.2 * found["memory"][0]
    kept = found["objects"][-1] - found["objects"][1]  # the first wave also makes what is made once
    assert kept < selections * (waves - 2) / 2, found["objects"]  # one object kept a selection would be twice as many
    assert found["tasks"] == 1

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
    import asyncio, json, re, sys, urllib.request
    import numpy as np
    from cappy_select import OpenAIProvider, Scorer, Selector
    from cappy_select.scorer import ScoredPairs

    class Constant(Scorer):
        async def ascore_detailed(self, pairs, **_):
            zeros = np.zeros(len(pairs), np.int64)
            return ScoredPairs(np.full(len(pairs), 0.5, np.float32), zeros, zeros)

    base, selections, waves = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    prices = {"input_cost_per_token": 1.1e-6, "output_cost_per_token": 2.3e-6}
    models = [OpenAIProvider(name, api_base=base, api_key="none", **prices) for name in ("several", "one")]
    selector = Selector(models, samples=10, scorer=Constant(Scorer.load().bundle), deadline_s=300)

    def rss():
        return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read()).group(1))

    async def main():
        memory, total = [], {"answers": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost": 0.0, "failures": 0}
        for _ in range(waves):
            found = await asyncio.gather(*(selector.aselect(f"question {n}") for n in range(selections)))
            for selection in found:
                total["answers"] += len(selection.candidates)
                total["prompt_tokens"] += selection.usage.prompt_tokens
                total["completion_tokens"] += selection.usage.completion_tokens
                total["cost"] += selection.cost
                total["failures"] += len(selection.failures)
                assert sorted(c.index for c in selection.candidates) == list(range(20))
            del found
            memory.append(rss())
        for model in models:
            await model.aclose()
        print(json.dumps({"memory": memory, "tasks": len(asyncio.all_tasks())} | total))

    asyncio.run(main())
    tally = urllib.request.urlopen(base.removesuffix("/v1") + "/tally").read()
    print(tally.decode())
""")


@pytest.mark.parametrize(
    ("selections", "waves"),
    [(25, 1), pytest.param(500, 3, marks=[pytest.mark.slow, pytest.mark.long], id="10,000 candidates a wave")],
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
    assert found["tasks"] == 1

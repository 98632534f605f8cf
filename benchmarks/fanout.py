"""What does the fan-out cost? Side by side, in one run, against one server on 127.0.0.1.

    python benchmarks/fanout.py [--json FILE]

Throughput: the same calls, so many at a time, by the bare client, by our provider, and by whole selections, gates and
all, turn by turn; a ratio is that of the medians over the rounds. Overhead: how much longer a selection of 12 calls
takes than its slowest call, and than the bare client's 12 calls; with a scorer that gives every answer the same score,
so that scoring is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import numpy as np

from cappy_select import LiteLLMProvider, OpenAIProvider, Request, Scorer, Selector
from cappy_select.scorer import ScoredPairs

MESSAGES = ({"role": "user", "content": "Which two rivers meet near Nauta to form the Amazon?"},)
CALLS_A_SELECTION = 12
PRICES: dict[str, Any] = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}


class Constant(Scorer):
    """Every answer is as good as the others."""

    async def ascore_detailed(self, pairs: Any, **_: Any) -> ScoredPairs:
        zeros = np.zeros(len(pairs), np.int64)
        return ScoredPairs(np.full(len(pairs), 0.5, np.float32), zeros, zeros)


@contextmanager
def server(delay_ms: float) -> Iterator[str]:
    script = Path(__file__).with_name("loopback_server.py")
    process = subprocess.Popen([sys.executable, script, "--delay-ms", str(delay_ms)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


async def throughput(call: Callable[[], Awaitable[Any]], calls: int, at_a_time: int) -> float:
    """Calls a second."""
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            await call()

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_a_time)))
    return calls / (time.perf_counter() - started)


async def compare(base: str, calls: int, at_a_time: int, rounds: int) -> list[dict[str, Any]]:
    import litellm
    import openai

    litellm.suppress_debug_info = True
    bare = openai.AsyncOpenAI(api_key="none", base_url=base, max_retries=0)
    scorer = Constant(Scorer.load().bundle)
    request = Request(messages=MESSAGES)
    providers = {
        "openai": OpenAIProvider("one", api_base=base, api_key="none", **PRICES),
        "litellm": LiteLLMProvider("openai/one", api_base=base, api_key="none", **PRICES),
    }

    def selection(provider: Any) -> Callable[[], Awaitable[Any]]:
        selector = Selector([provider], samples=CALLS_A_SELECTION, scorer=scorer)
        return lambda: selector.aselect("Which two rivers meet near Nauta to form the Amazon?")

    ways: dict[str, dict[str, tuple[Callable[[], Awaitable[Any]], int]]] = {
        "openai": {
            "bare": (
                lambda: bare.chat.completions.create(model="one", messages=list(MESSAGES), timeout=60.0),  # type: ignore[arg-type]
                1,
            ),
            "provider": (lambda: providers["openai"].complete(request), 1),
            "selector": (selection(providers["openai"]), CALLS_A_SELECTION),
        },
        "litellm": {
            "bare": (
                lambda: litellm.acompletion(
                    model="openai/one", messages=list(MESSAGES), api_base=base, api_key="none",
                    timeout=60.0, num_retries=0, max_retries=0,
                ),
                1,
            ),
            "provider": (lambda: providers["litellm"].complete(request), 1),
            "selector": (selection(providers["litellm"]), CALLS_A_SELECTION),
        },
    }  # fmt: skip
    results = []
    for client, engines in ways.items():
        speeds: dict[str, list[float]] = {name: [] for name in engines}
        for call, _ in engines.values():  # warm, and the server's want of `n` is known
            await throughput(call, 4, 2)
        for count in range(rounds):
            print(f"{client}: round {count + 1} of {rounds}", file=sys.stderr)
            names = list(engines)
            for name in names[count % len(names) :] + names[: count % len(names)]:  # nobody always comes first
                call, each = engines[name]
                gc.collect()
                await asyncio.sleep(0.2)  # LiteLLM logs what it did a little later: not at the next one's cost
                found = await throughput(call, calls // each, max(1, at_a_time // each))
                speeds[name].append(found * each)
        for name, found_in in speeds.items():
            results.append({
                "client": client,
                "engine": name,
                "calls_per_s": statistics.median(found_in),
                "ratio_to_bare": statistics.median(found_in) / statistics.median(speeds["bare"]),
            })  # fmt: skip
    await bare.close()
    return results


async def overhead(base: str, selections: int) -> dict[str, float]:
    """Milliseconds of a selection of 12 calls, turn by turn with the bare client's 12 calls at once.

    `over_slowest_call`: beyond the slowest of its own calls. `over_bare_calls`: beyond the bare client's time.
    """
    import openai

    bare = openai.AsyncOpenAI(api_key="none", base_url=base, max_retries=0)
    provider = OpenAIProvider("one", api_base=base, api_key="none", **PRICES)
    selector = Selector([provider], samples=CALLS_A_SELECTION, scorer=Constant(Scorer.load().bundle))
    over_slowest, over_bare = [], []
    for _ in range(selections):
        started = time.perf_counter()
        await asyncio.gather(
            *(bare.chat.completions.create(model="one", messages=list(MESSAGES)) for _ in range(CALLS_A_SELECTION))  # type: ignore[arg-type]
        )
        alone = time.perf_counter() - started
        selection = await selector.aselect("Which two rivers meet near Nauta to form the Amazon?")
        assert len(selection.candidates) == CALLS_A_SELECTION
        over_slowest.append(1000 * (selection.latency_s - max(c.latency_s for c in selection.candidates)))
        over_bare.append(1000 * (selection.latency_s - alone))
    await bare.close()
    await provider.aclose()
    measured = over_slowest[3:], over_bare[3:]  # the first ones open connections
    return {
        "over_slowest_call_ms": statistics.median(measured[0]),
        "over_slowest_call_p95_ms": sorted(measured[0])[int(0.95 * len(measured[0]))],
        "over_bare_calls_ms": statistics.median(measured[1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=240, help="of each engine in a round")
    parser.add_argument("--at-a-time", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with server(0) as base:
        results = asyncio.run(compare(base, options.calls, options.at_a_time, options.rounds))
    with server(60) as base:
        extra = asyncio.run(overhead(base, 40))
    for row in results:
        print(
            f"{row['client']:8} {row['engine']:9} {row['calls_per_s']:8.0f} calls/s   {row['ratio_to_bare']:.2f} × bare"
        )
    print(
        f"a selection of {CALLS_A_SELECTION} calls: {extra['over_slowest_call_ms']:.1f} ms over its slowest call "
        f"(95 %: {extra['over_slowest_call_p95_ms']:.1f} ms), {extra['over_bare_calls_ms']:.1f} ms over the bare client"
    )
    if options.json:
        options.json.write_text(json.dumps({"throughput": results, "overhead": extra}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What do 64 callers at once cost? Their throughput beside that of one call with all their pairs.

    python benchmarks/callers.py [--json FILE]

Both take turns, round by round; the ratio is the median over the rounds. Scores must be the same bits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scoring import ANSWERS, SHARED, workload

from cappy_select import Scorer

CALLERS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=8, help="of each caller's call")
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    pairs = workload("distinct", -(-CALLERS * options.pairs // ANSWERS), SHARED / "data" / "candidates")
    calls = [pairs[start : start + options.pairs] for start in range(0, CALLERS * options.pairs, options.pairs)]
    everything = [pair for call in calls for pair in call]
    scorer = Scorer.load(cache=False)

    def together() -> list[np.ndarray]:
        return [scorer.score_pairs(everything)]

    def threads() -> list[np.ndarray]:
        with ThreadPoolExecutor(CALLERS) as pool:
            return list(pool.map(scorer.score_pairs, calls))

    def tasks() -> list[np.ndarray]:
        async def all_of_them() -> list[np.ndarray]:
            return list(await asyncio.gather(*map(scorer.ascore_pairs, calls)))

        return asyncio.run(all_of_them())

    ways: dict[str, Callable[[], list[np.ndarray]]] = {"one call": together, "64 threads": threads, "64 tasks": tasks}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    expected = np.concatenate(together())
    for _ in range(options.rounds):
        for name, score in ways.items():
            started = time.perf_counter()
            found = np.concatenate(score())
            seconds[name].append(time.perf_counter() - started)
            if found.tobytes() != expected.tobytes():
                raise SystemExit(f"{name}: other scores than one call's")
    figures = {
        name: {
            "pairs_per_s": len(everything) / statistics.median(taken),
            "ratio_to_one_call": statistics.median(a / b for a, b in zip(seconds["one call"], taken, strict=True)),
        }
        for name, taken in seconds.items()
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    for name, row in figures.items():
        print(f"{name:12} {row['pairs_per_s']:7.1f} pairs/s   {row['ratio_to_one_call']:.2f} × one call")


if __name__ == "__main__":
    main()

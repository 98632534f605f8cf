"""Adaptation on real answers: half of the prompts to learn from, the other half to pick on, several times over.

    python benchmarks/adaptation.py                        # TriviaQA and GSM8K, five splits each, an hour on two cores
    python benchmarks/adaptation.py --sets gsm8k --splits 1

Reads recorded answers with `correct` (--data, a folder of NAME.jsonl.gz) and says so when they are not there. Each
split is a whole `adapt`: trained on one half's marks, its picks judged on the other half. A prompt that is held out in
several splits counts once, with the mean of its differences; intervals are a paired bootstrap over prompts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from cappy_select.adapt import AdaptConfig, adapt
from cappy_select.adapt.folder import PICKS
from cappy_select.evaluate.intervals import paired

DATA = Path(__file__).parents[2] / "shared" / "data" / "candidates"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--sets", nargs="+", default=["gsm8k", "trivia_qa"])
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--scorer", help="what to adapt; default: the embedded scorer")
    parser.add_argument("--epochs", type=float, default=AdaptConfig.model_fields["epochs"].default)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the trainer's configuration")
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"), help="a killed run goes on from it")
    options = parser.parse_args()
    files = {name: options.data / f"{name}.jsonl.gz" for name in options.sets}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        sys.exit(f"not measured: no {', '.join(missing)}")
    for name, file in files.items():
        found: dict[str, list[dict[str, float]]] = defaultdict(list)
        for split in range(options.splits):
            config = AdaptConfig(
                held_out=0.5, seed=split, scorer=options.scorer, epochs=options.epochs, settings=tuple(options.set)
            )
            folder = options.out / f"{name}-{split}"
            done = adapt([], folder, config, recorded=[file], on_stage=lambda text: print(text, file=sys.stderr))
            if done.report is None:
                sys.exit("stopped; the same command goes on")
            print(f"{name} {split}: {[(w.name, round(100 * w.quality, 1)) for w in done.report.ways]}", file=sys.stderr)
            for line in (folder / PICKS).read_text(encoding="utf-8").splitlines():
                pick = json.loads(line)
                found[pick.pop("id")].append(pick)
        _print(name, found, options.splits)


def _print(name: str, found: dict[str, list[dict[str, float]]], splits: int) -> None:
    ways = list(next(iter(found.values()))[0])
    means = {way: np.array([np.mean([pick[way] for pick in picks]) for picks in found.values()]) for way in ways}
    print(f"\n{name}: {len(found)} prompts held out in {splits} splits\n")
    print("| picked by | quality | adapted over it, points (95 %) |\n|---|---:|---:|")
    for way, values in means.items():
        over = "" if way == "adapted" else str(paired(means["adapted"] - values))
        print(f"| {way} | {100 * values.mean():.1f} % | {over} |", flush=True)


if __name__ == "__main__":
    main()

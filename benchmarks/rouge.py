"""How fast is Rouge-L? rouge_score and `cappy_select.data.labels` side by side, in one run, on one core.

    python benchmarks/rouge.py [--quick] [--json FILE]

Needs `pip install rouge-score`. The two take turns, round by round, so that what else the machine does meets both; a
ratio is the median over the rounds. Both give the same F1 to the last digit, which is checked on the way.

Workloads
    10/10, 30/40, 300/300    pairs of texts of so many words, all different
    17 to one                17 responses of 30 words to one reference of 40, as one instruction's samples are:
                             one call of rouge_l_batch
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cappy_select.core.errors import UnscorableWarning
from cappy_select.data.labels import rouge_l, rouge_l_batch

SHARED = Path(__file__).resolve().parents[2] / "shared"
GROUP = 17  # samples an instruction, as in the paper
Pairs = list[tuple[str, str]]  # (response, reference)
Score = Callable[[Pairs], list[float]]


def published() -> Score:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return lambda pairs: [scorer.score(reference, response)["rougeL"].fmeasure for response, reference in pairs]


def one_by_one(pairs: Pairs) -> list[float]:
    return [rouge_l(response, [reference]) for response, reference in pairs]


def in_groups(pairs: Pairs) -> list[float]:
    scores = []
    for start in range(0, len(pairs), GROUP):
        group = pairs[start : start + GROUP]
        scores += rouge_l_batch([response for response, _ in group], [[reference] for _, reference in group])
    return scores


# ---------------------------------------------------------------- workloads


def running_text(instances: Path) -> list[str]:
    """Words in their order: of real instructions and references, or drawn as a language's are (Zipf)."""
    if instances.exists():
        with gzip.open(instances, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        random.Random(0).shuffle(rows)
        return [word for row in rows[:20_000] for word in f"{row['instruction']} {' '.join(row['references'])}".split()]
    rng = random.Random(0)
    parts = ("re", "con", "ter", "mi", "ra", "ol", "est", "vi", "an", "du", "pla", "so")
    ends = ("", "", "s", "ed", "ing", "er", "ly", "ness", "ation", ".", ",")
    language = ["".join(rng.choices(parts, k=rng.randint(1, 3))) + rng.choice(ends) for _ in range(30_000)]
    return rng.choices(language, weights=[1 / rank for rank in range(1, len(language) + 1)], k=1_000_000)


def pairs_of(text: list[str], lengths: tuple[int, int], number: int, *, group: int, seed: int) -> Pairs:
    """Pairs of pieces of the text; a `group` of them has one reference."""
    rng = random.Random(seed)

    def piece(length: int) -> str:
        start = rng.randrange(len(text) - length)
        return " ".join(text[start : start + length])

    pairs = []
    for place in range(number):
        if place % group == 0:
            reference = piece(lengths[1])
        pairs.append((piece(lengths[0]), reference))
    return pairs


# ---------------------------------------------------------------- the run


def compare(name: str, text: list[str], lengths: tuple[int, int], rounds: int, *, group: int) -> dict[str, Any]:
    """Both, turn by turn, each round on texts of its own: a text that comes back would be known."""
    theirs, ours = published(), in_groups if group > 1 else one_by_one
    few = max(GROUP, 30_000 // sum(lengths))  # pairs; ours are timed on twenty times as many
    few -= few % group
    speeds: dict[str, list[float]] = {"rouge_score": [], "cappy_select": []}
    warm = pairs_of(text, lengths, 20 * few, group=group, seed=0)
    theirs(warm[:group]), ours(warm)
    for count in range(1, rounds + 1):
        print(f"{name}: round {count} of {rounds}", file=sys.stderr)
        pairs = pairs_of(text, lengths, 21 * few, group=group, seed=count)
        shares = {"rouge_score": pairs[:few], "cappy_select": pairs[few:]}
        for engine, score in {"rouge_score": theirs, "cappy_select": ours}.items():
            started = time.perf_counter()
            score(shares[engine])
            speeds[engine].append(len(shares[engine]) / (time.perf_counter() - started))
        assert ours(pairs[:few]) == theirs(pairs[:few])
    return {
        "workload": name,
        "rouge_score_pairs_per_s": statistics.median(speeds["rouge_score"]),
        "cappy_select_pairs_per_s": statistics.median(speeds["cappy_select"]),
        "ratio": statistics.median(b / a for a, b in zip(*speeds.values(), strict=True)),
        "rounds_pairs_per_s": speeds,
    }


def show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("words", title="Rouge-L, pairs a second on one core")
    for title in ("rouge_score", "cappy_select", "ratio"):
        table.add_column(title, justify="right")
    for row in results:
        speeds = (f"{row[f'{engine}_pairs_per_s']:,.0f}" for engine in ("rouge_score", "cappy_select"))
        table.add_row(row["workload"], *speeds, f"{row['ratio']:.0f}×")
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two rounds: half a minute")
    parser.add_argument(
        "--instances", type=Path, default=SHARED / "data" / "t0" / "heldout.jsonl.gz", help="where the words are from"
    )
    parser.add_argument("--rounds", type=int, help="default: 7, or 2 with --quick")
    parser.add_argument("--json", type=Path, help="write the figures as a list of objects")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    warnings.simplefilter("ignore", UnscorableWarning)  # some pieces have no word of a-z
    print(f"texts: {options.instances if options.instances.exists() else 'generated'}", file=sys.stderr)
    text = running_text(options.instances)
    rounds = options.rounds or (2 if options.quick else 7)
    results = [
        compare(f"{first}/{second}", text, (first, second), rounds, group=1)
        for first, second in ((10, 10), (30, 40), (300, 300))
    ]
    results.append(compare("17 to one", text, (30, 40), rounds, group=GROUP))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    show(results)


if __name__ == "__main__":
    main()

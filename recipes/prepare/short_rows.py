"""The short rows of instances: what a CPU learns from first, for a short pair costs a fifth of a long one.

    python recipes/prepare/short_rows.py train-recross.jsonl.gz made/instances.jsonl --out short.jsonl

A row is short when its instruction and its longest answer have at most so many characters together. Of a task at most
--cap rows are drawn, of a made one (its name begins with made_) --made-cap. The same files give the same rows.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from pathlib import Path

from cappy_select import InputError
from cappy_select.data import Instance, Problems, read_instances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="instances, as .jsonl or .jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, help="a file")
    parser.add_argument("--characters", type=int, default=650)
    parser.add_argument("--cap", type=int, default=12_000)
    parser.add_argument("--made-cap", type=int, default=8_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    short: dict[str, list[Instance]] = defaultdict(list)
    try:
        for file in options.files:
            for _, row in read_instances(file, Problems(strict=True)):
                if size_of(row) <= options.characters:
                    short[row.task].append(row)
    except InputError as error:
        sys.exit(str(error))
    draw, count = random.Random(options.seed), 0
    scratch = options.out.with_suffix(".partial")
    with scratch.open("w", encoding="utf-8") as lines:
        for task, rows in sorted(short.items()):
            most = options.made_cap if task.startswith("made_") else options.cap
            for row in draw.sample(rows, most) if len(rows) > most else rows:
                lines.write(json.dumps(row.model_dump(exclude_none=True), ensure_ascii=False) + "\n")
                count += 1
    scratch.replace(options.out)
    print(f"{options.out}: {count:,} rows of {len(short)} tasks", file=sys.stderr)


def size_of(row: Instance) -> int:
    """Characters of the instruction and of the longest answer."""
    return len(row.instruction) + max((len(answer) for answer in (*row.references, *(row.choices or ()))), default=0)


if __name__ == "__main__":
    main()

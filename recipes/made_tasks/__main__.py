"""Tasks made of T0's own texts, without anybody's labels, for what T0's tasks don't train.

    python recipes/made_tasks train-recross.jsonl.gz train-selfinstruct.jsonl.gz --out made

MADE/instances.jsonl, for `cappy build` beside the files it is made of:
    statements.py  does a statement follow from a text, does a clause hold, is this the answer
    order.py       how does a text go on, what was the cause
    mentions.py    who is meant, is a word used in one sense
    answers.py     T0's own questions, with wrong answers out of their texts, or their choices in another order
MADE/samples.jsonl, for its --samples: references shortened or padded, which Rouge-L labels.

Nothing is taken from the tasks that an evaluation has, nor are their wordings. The same files give the same tasks.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from answers import distracted, reordered, spoiled
from mentions import blanks, senses
from order import because, goes_on
from statements import embedded, follows, verified
from texts import Corpus, Row, read_corpus

MAKERS: list[Callable[[Corpus, random.Random], Iterator[Row]]] = [
    follows, embedded, verified, goes_on, because, blanks, senses, distracted, reordered,
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="instances, as .jsonl or .jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if missing := [str(file) for file in options.files if not file.is_file()]:
        sys.exit(f"no such file: {', '.join(missing)}")
    corpus = read_corpus([row for file in options.files for row in _read(file)])
    draw = random.Random(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    counts = Counter[str]()
    _write(options.out / "instances.jsonl", _made(corpus, draw, counts))
    _write(options.out / "samples.jsonl", spoiled(corpus, draw))
    print(f"{options.out}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}", file=sys.stderr)


def _made(corpus: Corpus, draw: random.Random, counts: Counter[str]) -> Iterator[Row]:
    for maker in MAKERS:
        name = maker.__name__
        for number, row in enumerate(maker(corpus, draw)):
            counts[name] += 1
            yield {"id": f"made_{name}-{number}", "task": f"made_{name}", "template": name} | row


def _read(file: Path) -> Iterator[Row]:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _write(file: Path, rows: Iterable[Row]) -> None:
    scratch = file.with_suffix(".partial")
    with scratch.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    scratch.replace(file)


if __name__ == "__main__":
    main()

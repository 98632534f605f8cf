"""Tasks made of T0's own texts, without anybody's labels, for what T0's tasks don't train.

    python recipes/made_tasks train-recross.jsonl.gz train-selfinstruct.jsonl.gz --out made

MADE/instances.jsonl, for `cappy build` beside the files it is made of:
    statements.py  does a statement follow from a text, is this the answer
    clauses.py     does what stands under "he knew that", "I doubt that" or "if" hold
    order.py       how does a text go on, what was the cause
    mentions.py    who is meant
    passages.py    which passage answers, and which sentence
    answers.py     T0's own questions, with wrong answers out of their texts, or their choices in another order
MADE/samples.jsonl, for its --recorded: references shortened, or astray, which Rouge-L labels.

No row of an evaluation's tasks is in them, but what is asked is often alike (COPA's causes, HellaSwag's endings, what
follows as in NLI), and answered in the words that are usual there. The same files give the same tasks.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from answers import distracted, reordered, spoiled
from clauses import clauses
from mentions import blanks
from order import because, goes_on
from passages import answers_it, asked_here, asked_of, told_in
from statements import answered, follows, verified
from texts import Corpus, Row, read_corpus

from cappy_select import (
    InputError,
)
from cappy_select.data import (
    Problems,
    read_instances,
)

MAKERS: list[Callable[[Corpus, random.Random], Iterator[Row]]] = [
    follows, answered, verified, clauses, goes_on, because, blanks, asked_of, asked_here, told_in, answers_it,
    distracted, reordered,
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="instances, as .jsonl or .jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        strict = Problems(strict=True)
        corpus = read_corpus([vars(row) for file in options.files for _, row in read_instances(file, strict)])
    except InputError as error:
        sys.exit(str(error))
    if not corpus.texts:
        sys.exit(f"no texts in {', '.join(map(str, options.files))}: rows of T0's tasks are expected, by their names")
    options.out.mkdir(parents=True, exist_ok=True)
    counts = Counter[str]()
    _write(options.out / "instances.jsonl", _made(corpus, options.seed, counts))
    _write(options.out / "samples.jsonl", spoiled(corpus, random.Random(f"{options.seed} spoiled")))
    print(f"{options.out}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}", file=sys.stderr)


def _made(corpus: Corpus, seed: int, counts: Counter[str]) -> Iterator[Row]:
    for maker in MAKERS:
        name = maker.__name__
        for number, row in enumerate(maker(corpus, random.Random(f"{seed} {name}"))):  # each its own
            counts[name] += 1
            yield {"id": f"made_{name}-{number}", "task": f"made_{name}", "template": name} | row


def _write(file: Path, rows: Iterable[Row]) -> None:
    scratch = file.with_suffix(".partial")
    with scratch.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    scratch.replace(file)


if __name__ == "__main__":
    main()

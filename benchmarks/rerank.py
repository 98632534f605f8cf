"""Which template ranks passages best: is the passage the scorer's instruction, or the question?

    python benchmarks/rerank.py                       # two minutes
    python benchmarks/rerank.py --scorer BUNDLE

60 questions of adversarial_qa's held-out rows, each with its passage and nine others, the five that share most words
with the question among them. Reads t0/heldout.jsonl.gz (--data) and says so when it is not there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import sys
from pathlib import Path

import numpy as np

from cappy_select import Scorer

DATA = Path(__file__).parents[2] / "shared" / "data" / "t0" / "heldout.jsonl.gz"
QUESTIONS, OTHERS, ALIKE = 60, 9, 5
PROMPT = re.compile(r'Question: "(?P<question>.+)"\n\nContext: "(?P<passage>.+)"\n\nAnswer:')
TEMPLATES = [
    ("{document}", "{query}"),
    ('Could you please come up with a good question for the passage "{document}"?', "{query}"),
    ("Generate a question about the following passage: {document}", "{query}"),
    ("{query}", "{document}"),
    ("Answer this question: {query}", "{document}"),
    ("Question: {query} I found the following answer on Google: {document} Is that a correct answer?", "Yes"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--scorer", help="default: the embedded scorer")
    options = parser.parse_args()
    if not options.data.is_file():
        sys.exit(f"not measured: no {options.data}")
    scorer = Scorer.load() if options.scorer is None else Scorer.load(options.scorer)
    asked = _asked(options.data)
    if not asked:
        sys.exit(f"not measured: {options.data} has fewer than {QUESTIONS} passages with a question")
    print("| instruction → response | first is right | MRR |\n|---|---:|---:|")
    for instruction, response in TEMPLATES:
        ranks = []
        for query, passages in asked:
            pairs = [(_filled(instruction, passage, query), _filled(response, passage, query)) for passage in passages]
            scores = scorer.score_pairs(pairs)
            ranks.append(1 + int((scores[1:] >= scores[0]).sum()))
        found = np.array(ranks)
        print(f"| `{instruction}` → `{response}` | {np.mean(found == 1):.0%} | {np.mean(1 / found):.2f} |", flush=True)


def _asked(data: Path) -> list[tuple[str, list[str]]]:
    """Questions, each with its passages, the right one first."""
    pairs: dict[str, str] = {}
    with gzip.open(data, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["task"].startswith("adversarial_qa") and (found := PROMPT.fullmatch(row["instruction"])):
                pairs.setdefault(found["passage"], found["question"])
    draw = random.Random(0)
    passages = sorted(pairs)
    asked = []
    for passage in draw.sample(passages, QUESTIONS) if len(passages) >= QUESTIONS else []:
        words = set(re.findall(r"\w{4,}", pairs[passage].lower()))
        others = [other for other in passages if other != passage]
        alike = sorted(others, key=lambda other: -len(words & set(re.findall(r"\w{4,}", other.lower()))))[:ALIKE]
        rest = draw.sample([other for other in others if other not in alike], OTHERS - ALIKE)
        asked.append((pairs[passage], [passage, *alike, *rest]))
    return asked


def _filled(template: str, passage: str, query: str) -> str:
    return template.replace("{document}", passage).replace("{query}", query)


if __name__ == "__main__":
    main()

"""What is in a file of instances, a sample store, or pairs: a few rows, counts, scores, lengths."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from cappy_select.ask.recorded import Recorded
from cappy_select.bundle.bundle import EMBEDDED, load_bundle
from cappy_select.core.errors import InputError
from cappy_select.data.formats import Problems, is_rows, read_records
from cappy_select.data.instances import Instance, read_instances
from cappy_select.data.sharding import PAIR_FIELDS, SCORE_BINS
from cappy_select.data.shards import check_shards, read_pairs, shards_of
from cappy_select.data.stages import WINDOW
from cappy_select.data.store import SampleStore
from cappy_select.scorer.encoding import PairEncoder

_T = TypeVar("_T")

STEP = 64  # tokens
_MEASURED = 2000  # rows whose lengths are counted; of pairs, which are shuffled, the first ones
_PAIR = {"instruction", "response", "score"}


class Summary(BaseModel):
    """`counts` has, by what they are of (task, kind, model), numbers by name; the biggest first.

    `scores` counts rows in 20 equal bins from 0 to 1; `lengths` has the tokens of `measured` rows, instruction and
    response together, in bins of 64, the last one for all beyond 512.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    holds: Literal["instances", "samples", "pairs"]
    rows: int
    counts: dict[str, dict[str, int]]
    scores: list[int] | None = None
    measured: int = Field(description="rows whose lengths were counted")
    lengths: list[int]
    examples: list[dict[str, Any]]
    failures: list[str] = Field(default_factory=list, description="samples that did not come")
    left_out: list[tuple[str, str]] = Field(default_factory=list, description="rows that can't be read, the first 1000")
    left_out_count: int = 0


def summary_of(path: str | Path, *, examples: int = 5) -> Summary:
    """Of a file of instances or pairs, a folder of pairs, or a sample store.

    Raises InputError when it is none of them, MissingExtra for Parquet without pyarrow.
    """
    path = Path(path)
    if path.is_dir():
        return _pairs(path.name, check_shards(path, shards_of(path)), examples)
    if not path.is_file():
        raise InputError(f"no such file or folder: {path}")
    if not is_rows(path):
        return _samples(path, examples)
    first = next((row for _, row in read_records(path, Problems())), {})
    if first.keys() >= _PAIR and path.name.lower().endswith(".parquet"):
        return _pairs(path.name, [path], examples)
    return _instances(path, examples)


def _pairs(name: str, files: list[Path], examples: int) -> Summary:
    counts: dict[str, Counter[str]] = {"task": Counter(), "kind": Counter()}
    scores = [0] * SCORE_BINS
    shown: list[dict[str, Any]] = []
    for file in files:
        for columns in read_pairs(file, ["score", "task", "kind"]):
            for score, task, kind in zip(*columns.values(), strict=True):
                scores[_bin(score)] += 1
                counts["task"][task] += 1
                counts["kind"][kind] += 1
        for columns in read_pairs(file, PAIR_FIELDS, _MEASURED):
            rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            shown += rows[: _MEASURED - len(shown)]
            break
    return Summary(
        name=name,
        holds="pairs",
        rows=sum(scores),
        counts=_by_size(counts),
        scores=scores,
        measured=len(shown),
        lengths=_lengths((row["instruction"], row["response"]) for row in shown),
        examples=shown[:examples],
    )


def _instances(path: Path, examples: int) -> Summary:
    problems = Problems()
    counts: dict[str, Counter[str]] = {"task": Counter(), "answers": Counter()}
    drawn: _Drawn[Instance] = _Drawn()
    for _, instance in read_instances(path, problems):
        counts["task"][instance.task] += 1
        counts["answers"]["with choices" if instance.choices else "open"] += 1
        drawn.offer(instance)
    shown = drawn.kept
    texts = ((instance.instruction, max(instance.references, key=len, default="")) for instance in shown)
    return Summary(
        name=path.name,
        holds="instances",
        rows=counts["task"].total(),
        counts=_by_size(counts),
        measured=len(shown),
        lengths=_lengths(texts),
        examples=[instance.model_dump(mode="json", exclude_defaults=True) for instance in shown[:examples]],
        left_out=problems.listed,
        left_out_count=problems.count,
    )


def _samples(path: Path, examples: int) -> Summary:
    with SampleStore(path) as store:
        counts: dict[str, Counter[str]] = {"model": Counter(), "task": Counter()}
        scores = [0] * SCORE_BINS
        known = False
        drawn: _Drawn[tuple[Instance, Recorded]] = _Drawn()
        for instance, stored in store.instances():
            for _, sample, _ in stored:
                counts["model"][sample.model] += 1
                counts["task"][instance.task] += 1
                if sample.quality is not None:
                    known = True
                    scores[_bin(sample.quality)] += 1
                drawn.offer((instance, sample))
        shown = drawn.kept
        failed = [f"{f.task} {f.id}: {f.key.model} #{f.key.place}: {f.kind}: {f.message}" for f in store.failures()]
    return Summary(
        name=path.name,
        holds="samples",
        rows=counts["model"].total(),
        counts=_by_size(counts),
        scores=scores if known else None,
        measured=len(shown),
        lengths=_lengths((instance.instruction, sample.response) for instance, sample in shown),
        examples=[
            {"instruction": instance.instruction} | sample.model_dump(mode="json", exclude_none=True)
            for instance, sample in shown[:examples]
        ],
        failures=failed,
    )


class _Drawn(Generic[_T]):
    """So many of a stream, each as likely as the others (reservoir sampling)."""

    def __init__(self) -> None:
        self.kept: list[_T] = []
        self._offered = 0
        self._random = random.Random(0)  # noqa: S311

    def offer(self, item: _T) -> None:
        self._offered += 1
        if len(self.kept) < _MEASURED:
            self.kept.append(item)
        elif (place := self._random.randrange(self._offered)) < _MEASURED:
            self.kept[place] = item


def _bin(score: float) -> int:
    return min(SCORE_BINS - 1, max(0, int(score * SCORE_BINS)))


def _lengths(pairs: Iterator[tuple[str, str]]) -> list[int]:
    """Rows by length in tokens, of the embedded scorer's tokenizer."""
    encoder = PairEncoder.of(load_bundle(EMBEDDED))
    counted = [0] * (WINDOW // STEP + 1)
    for instruction, response in pairs:
        first, second = (tokens.length for tokens in encoder.tokens([instruction, response]))
        length = first + second + encoder.special_count
        counted[min(len(counted) - 1, max(0, length - 1) // STEP)] += 1
    return counted


def _by_size(counts: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {of: dict(counter.most_common()) for of, counter in counts.items()}

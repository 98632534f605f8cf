"""Instances and samples -> pairs: Parquet shards and a manifest, in bounded memory, restartable.

    OUT/train-00000-of-00003.parquet ...   instruction, response, score, kind, task, group; shuffled
    OUT/validation-00000-of-00001.parquet  whole instructions that training has not
    OUT/left_out.jsonl                     rows of the input that can't be used, when there are any
    OUT/manifest.json                      what was made of what; written last, so it means a whole set

While it is being made, OUT/.work holds what is done so far. The same input, config and seed give the same bytes,
whatever the number of workers and however often a run was killed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cappy_select.bundle.resolve import resolve
from cappy_select.core.errors import InputError, validation_message
from cappy_select.core.files import disk_errors
from cappy_select.data import sharding, stages
from cappy_select.data.engine import Figures, Workers
from cappy_select.data.folder import (
    FORMAT,
    LOCK,
    WORK,
    begin,
    check_replaceable,
    hashed,
    publish,
    shard_names,
    whole,
)
from cappy_select.data.formats import is_rows, parquet_module
from cappy_select.data.labels import label_named, label_source
from cappy_select.data.mixture import Mixture, targets
from cappy_select.data.pairs import Mode
from cappy_select.data.store import SampleStore
from cappy_select.scorer.session import usable_cores

MOST_ROWS = 1_000_000_000  # a few times the 160 million of the paper
ADAPT_ROWS = 102_400  # of a task, in the paper's repository: 400 updates of 256

_PARTITION_BYTES = 8_000_000  # of input text
_PACKED = 6  # times smaller is gzipped text; Parquet likewise


class BuildConfig(BaseModel):
    """How pairs are made.

    Args:
        mode: `pretrain`: the paper's section 3.2. `adapt`: the paper's repository's recipe for one task: sampled
            answers to questions with choices are used too, and each task is repeated or cut to `rows_per_task`.
        label: Name of the label of sampled answers (`data.labels`), or `judge:MODEL`.
        mismatches: Other questions' references taken as wrong answers, for each reference of a question
            without choices.
        sampled_only: No pairs of references, wrong choices and other questions' references: only of sampled answers,
            when it is known how right they are.
        validation: The share of instructions (or groups) held out, beside those whose `split` says so.
        mixture: `proportional`, `equal`, or weights by task.
        cap: At most so many training rows of a task count in the mixture.
        rows: Training rows in all; None: what there is.
        rows_per_task: Training rows of each task, instead of a mixture; None: 102,400 to `adapt`.
        rows_per_shard: Of the files.
        partitions: Over which the work is divided; None: as the size of the input asks. Part of what decides
            which other question's reference is drawn.
        seed: Of all that is drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    mode: Mode = "pretrain"
    label: str = "rouge_l"
    mismatches: int = Field(1, ge=0, le=100)
    sampled_only: bool = False
    validation: float = Field(0.05, ge=0, lt=1)
    mixture: Mixture = "proportional"
    cap: int | None = Field(None, ge=1)
    rows: int | None = Field(None, ge=1, le=MOST_ROWS)
    rows_per_task: int | None = Field(None, ge=1, le=MOST_ROWS)
    rows_per_shard: int = Field(50_000, ge=1)
    partitions: int | None = Field(None, ge=1, le=4096)
    seed: int = Field(0, ge=0)

    @field_validator("mixture", mode="before")
    @classmethod
    def _weighs(cls, mixture: Any) -> Any:
        if mixture in ("proportional", "equal"):
            return mixture
        weights = list(mixture.values()) if isinstance(mixture, dict) else [None]
        numbers = [weight for weight in weights if isinstance(weight, int | float) and math.isfinite(weight)]
        if len(numbers) < len(weights) or min(numbers, default=0) < 0 or not any(numbers):
            raise ValueError("expected proportional, equal, or weights by task: finite numbers, none below 0")
        return mixture

    @model_validator(mode="after")
    def _agrees(self) -> BuildConfig:
        if self.rows_per_task is not None and self._is_mixed:
            raise ValueError("rows_per_task takes the place of mixture, cap and rows: give it alone")
        return self

    @property
    def _is_mixed(self) -> bool:
        return self.rows is not None or self.cap is not None or self.mixture != "proportional"

    @property
    def each_task(self) -> int | None:
        """`rows_per_task`, or its default."""
        return self.rows_per_task or (ADAPT_ROWS if self.mode == "adapt" and not self._is_mixed else None)


OnProgress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is)"""


def build(
    instances: Sequence[str | Path],
    out: str | Path,
    *,
    config: BuildConfig | Mapping[str, Any] | None = None,
    recorded: Sequence[str | Path] = (),
    against: Sequence[str | Path] = (),
    fields: Mapping[str, str] | None = None,
    scorer: str | Path | None = None,
    revision: str | None = None,
    workers: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Make pairs of instances and samples; returns the manifest.

    Killed and called again with the same arguments it goes on; when all is done already it does nothing.

    Args:
        instances: Files (`read_instances`); of equal instructions of a task one question is made.
        out: The folder to make.
        config: See `BuildConfig`.
        recorded: Sample stores, or files of recorded samples.
        against: Evaluation instances; what shares a run of 13 words with one of them is left out.
        fields: Other names in the instance files.
        scorer, revision: Whose tokenizer the lengths in the manifest are counted with; None: the embedded one's.
        workers: Processes; None: one a CPU.
        strict: Stop at the first row that can't be used; else it is left out, counted and listed.
        overwrite: Replace pairs that were made in another way.
        on_progress: Told how far it is.

    Raises:
        InputError: an input or a setting can't be used, or `out` holds something else.
        DataError: the disk is full or a worker died; what was done is kept.
        MissingExtra: pyarrow, or what the label needs, is not there.
    """
    checked = _config(config)
    parquet_module()
    if checked.label == stages.JUDGE:
        raise InputError("judge:MODEL needs the name of the model that judged")
    if not checked.label.startswith(stages.JUDGE):
        label_named(checked.label)
    if not instances:
        raise InputError("there are no instances to make pairs of")
    folder = Path(out)
    bundle = resolve(scorer, revision=revision)
    inputs = [hashed(path) for path in instances]
    sources: dict[str, Any] = {
        "instances": inputs,
        "samples": [_samples_digest(path) for path in recorded],
        "against": [hashed(path) for path in against],
        "fields": dict(fields or {}),
        "label": label_source(checked.label),
        "tokenizer": {"name": str(bundle), "sha256": bundle.manifest.files["tokenizer.json"].sha256},
        "strict": strict,
    }
    fingerprint = _digest({"format": FORMAT, "config": checked.model_dump(mode="json"), "sources": sources})
    done = whole(folder, fingerprint)
    if done is not None:
        return done
    work = folder / WORK
    check_replaceable(folder, fingerprint, overwrite)
    with disk_errors(folder):
        work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / LOCK).acquire(timeout=0):
            if (done := whole(folder, fingerprint)) is not None:  # by another process, just now
                return done
            begin(work, fingerprint)
            spec = stages.Spec(
                work=work,
                inputs=tuple(str(path) for path in instances),
                fields=dict(fields or {}),
                stores=tuple(str(path) for path in recorded if not is_rows(path)),
                recorded=tuple(str(path) for path in recorded if is_rows(path)),
                against=tuple(str(path) for path in against),
                stored=sum(source.get("samples", 0) for source in sources["samples"]),
                bundle=bundle.path,
                partitions=checked.partitions or _partitions(instances),
                mode=checked.mode,
                label=checked.label,
                mismatches=checked.mismatches,
                sampled_only=checked.sampled_only,
                validation=checked.validation,
                seed=checked.seed,
                strict=strict,
            )
            made = _made(spec, checked, workers or usable_cores(), on_progress)
            if [_samples_digest(path) for path in recorded] != sources["samples"]:
                raise InputError("a sample store changed while pairs were made of it: run it again")
            head = {"format": FORMAT, "fingerprint": fingerprint, "config": checked.model_dump(mode="json")}
            return publish(folder, head | {"sources": sources} | made.manifest, made.shards, made.problems)
    except Timeout as error:
        raise InputError(f"{folder} is being made by another process") from error


class _Made(NamedTuple):
    manifest: dict[str, Any]
    shards: dict[str, Path]  # by the name they are to have
    problems: list[tuple[str, str]]


def _made(spec: stages.Spec, config: BuildConfig, workers: int, on_progress: OnProgress) -> _Made:
    """All stages; what the manifest says of them, and where the shards are."""
    with Workers(min(workers, max(spec.partitions, len(spec.inputs)))) as pool:

        def run(name: str, stage: Any, shared: Any, count: int, folder: str) -> list[Figures]:
            finished = 0

            def told() -> None:
                nonlocal finished
                finished += 1
                on_progress(name, finished, count)

            return pool.run(stage, shared, count, spec.work / folder, told)

        beside = run("taking samples in", stages.take_in, spec, len(spec.recorded), stages.IMPORTED)
        beside += run("reading evaluation files", stages.evaluation, spec, len(spec.against), stages.EVALUATION)
        scattered = run("reading", stages.scatter, spec, len(spec.inputs), stages.SCATTERED)
        read = sum(figures["instances"] for figures in scattered)
        if not read:
            listed = [problem for figures in scattered for problem in figures["problems"]]
            why = f"; the first problem is {listed[0][0]}: {listed[0][1]}" if listed else ""
            raise InputError(f"none of the input's rows is an instance{why}")
        run("drawing wrong answers", stages.pool, spec, spec.partitions, stages.POOLED)
        stages.merge_pools(spec.work, spec.partitions)
        paired = run("making pairs", stages.pair, spec, spec.partitions, stages.PAIRED)
        training = [figures["available"]["train"] for figures in paired]
        available: Counter[str] = sum((Counter(counts) for counts in training), Counter())
        held_out = sum(sum(figures["available"]["validation"].values()) for figures in paired)
        wanted = targets(
            dict(sorted(available.items())),
            config.mixture,
            cap=config.cap,
            rows=config.rows,
            rows_per_task=config.each_task,
        )
        shards = (-(-sum(wanted.values()) // config.rows_per_shard), -(-held_out // config.rows_per_shard))
        shared = sharding.Sharding(spec.work, spec.partitions, sharding.quotas(training, wanted), shards)
        run("mixing", sharding.shard, shared, spec.partitions, sharding.SHARDED)
        written = run("writing", sharding.write, shared, sum(shards), sharding.WRITTEN)
    names = shard_names(*shards)
    manifest = {
        "partitions": spec.partitions,
        "instances": {
            "read": read,
            "left_out": _total(scattered, "left_out"),
            "contaminated": _contaminated(paired, spec),
            "evaluation_rows_left_out": _total(beside[len(spec.recorded) :], "left_out"),
            "held_out_elsewhere": _total(paired, "held_out_elsewhere"),
            "same_instruction": _total(paired, "joined"),
            "without_pairs": _total(paired, "barren"),
        },
        "samples": {
            "stored": spec.stored + _total(beside[: len(spec.recorded)], "stored"),
            "used": _total(paired, "sampled"),
            "rows_left_out": _total(beside[: len(spec.recorded)], "left_out"),
            "unlabelled": _total(paired, "unlabelled"),
            "questions_without_scorable_reference": _total(paired, "unscorable"),
        },
        "references_without_mismatch": _total(paired, "unmatched"),
        "available": dict(sorted(available.items())),
        "rows": _rows(written),
    }
    return _Made(
        manifest,
        {name: spec.work / sharding.WRITTEN / str(number) / sharding.SHARD for number, name in enumerate(names)},
        [(where, message) for figures in (*scattered, *beside) for where, message in figures["problems"]],
    )


def _contaminated(paired: Sequence[Figures], spec: stages.Spec) -> dict[str, Any]:
    counts = [sum(figures["contaminated"].get(str(file), 0) for figures in paired) for file in range(len(spec.against))]
    return {"by_file": counts, "ids": [name for figures in paired for name in figures["contaminated_ids"]][:20]}


def _total(figures: Sequence[Figures], name: str) -> int:
    return sum(one[name] for one in figures)


def _rows(written: Sequence[Figures]) -> dict[str, Any]:
    """Of each side: rows by task and kind, scores, lengths."""
    sides = {}
    for side in stages.SIDES:
        mine = [figures for figures in written if figures["side"] == side]
        tasks: dict[str, dict[str, int]] = {}
        for task, kind, count in sorted(row for figures in mine for row in figures["counts"]):
            kinds = tasks.setdefault(task, {})
            kinds[kind] = kinds.get(kind, 0) + count
        kinds_in_all: Counter[str] = sum((Counter(kinds) for kinds in tasks.values()), Counter())
        scores = np.sum(
            [np.array(figures["scores"]) for figures in mine] or [np.zeros(sharding.SCORE_BINS, int)], axis=0
        )
        sides[side] = {
            "rows": sum(figures["rows"] for figures in mine),
            "kinds": dict(sorted(kinds_in_all.items())),
            "scores": scores.tolist(),
            "tokens": _lengths([figures["tokens"] for figures in mine]),
            "tasks": tasks,
        }
    return sides


def _lengths(counted: Sequence[Sequence[int]]) -> dict[str, int]:
    """Of the pairs in tokens: percentiles, and how many do not fit the window."""
    counts = np.zeros(max((len(one) for one in counted), default=0) + 1, np.int64)
    for one in counted:
        counts[: len(one)] += one
    if not counts.sum():
        return {}
    upto = np.cumsum(counts)
    at = {f"p{percent}": int(np.searchsorted(upto, upto[-1] * percent / 100)) for percent in (50, 90, 99)}
    over = int(counts[stages.WINDOW + 1 :].sum())
    return at | {"max": int(np.flatnonzero(counts)[-1]), f"over_{stages.WINDOW}": over}


def _config(given: BuildConfig | Mapping[str, Any] | None) -> BuildConfig:
    if isinstance(given, BuildConfig):
        return given
    try:
        return BuildConfig.model_validate(dict(given or {}))
    except ValidationError as error:
        raise InputError(validation_message(error)) from error


def _samples_digest(path: str | Path) -> dict[str, Any]:
    if is_rows(path):
        return hashed(path)
    with SampleStore(path) as store:
        return {"name": Path(path).name, "samples": sum(store.counts().values()), "sha256": store.digest()}


def _partitions(instances: Sequence[str | Path]) -> int:
    """A function of the input alone, so that the result is one too."""
    packed = (".gz", ".parquet")
    size = sum(Path(path).stat().st_size * (_PACKED if str(path).lower().endswith(packed) else 1) for path in instances)
    return min(1024, -(-size // _PARTITION_BYTES) or 1)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

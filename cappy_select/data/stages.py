"""The stages of `build`, each a pure function of one partition: scatter, pool, pair here, shard and write in
`sharding`.

    input file  --scatter--> instances by hash of the instruction
    partition   --pool-----> references from which other partitions draw wrong answers
    partition   --pair-----> its pairs, each once; what the others need to know about it
    partition   --shard----> the rows the mixture wants, repeated or cut, by shard
    shard       --write----> Parquet, shuffled

No stage holds more than its partition, and nothing depends on which process does it, or when.
"""

from __future__ import annotations

import heapq
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cappy_select.bundle.bundle import load_bundle
from cappy_select.core.characters import is_blank
from cappy_select.core.errors import InputError, UnscorableWarning
from cappy_select.core.files import write_whole
from cappy_select.data.contamination import Evaluations, telling_runs
from cappy_select.data.engine import Figures, append_rows, read_rows
from cappy_select.data.formats import Problems, read_records
from cappy_select.data.hashing import hash64
from cappy_select.data.instances import Instance, our_fields, read_instances
from cappy_select.data.labels import label_named
from cappy_select.data.pairs import Answer, LabelAnswers, Mode, Question, pairs_of
from cappy_select.data.sample import import_recorded
from cappy_select.data.store import SampleStore
from cappy_select.scorer.encoding import PairEncoder

IMPORTED, EVALUATION, SCATTERED, POOLED, PAIRED = "imported", "evaluation", "scattered", "pooled", "paired"
POOL = 1000  # references of a task that every partition may draw wrong answers from; more when it has more itself
WINDOW = 512  # tokens, Cappy's
_FLUSH = 2000  # rows
_LONGEST = 8192  # tokens; lengths beyond are counted as this
SIDES = ("train", "validation")


class Spec(NamedTuple):
    """What the stages share: the config's values, and where things are."""

    work: Path
    inputs: tuple[str, ...]
    fields: dict[str, str]
    stores: tuple[str, ...]  # of samples
    recorded: tuple[str, ...]  # files of samples
    stored: int  # samples in the stores
    against: tuple[str, ...]  # evaluation files
    bundle: Path  # whose tokenizer counts
    partitions: int
    mode: Mode
    label: str
    mismatches: int
    sampled_only: bool
    validation: float
    seed: int
    strict: bool


# ---------------------------------------------------------------------------------- what lies beside the input


def take_in(spec: Spec, number: int, out: Path) -> Figures:
    """Make a store of a file of recorded samples."""
    problems = Problems(strict=spec.strict)
    with SampleStore(out / _STORE, write=True) as store:
        import_recorded(spec.recorded[number], store, problems, fields=spec.fields)
        return _told(problems) | {"stored": sum(store.counts().values())}


def evaluation(spec: Spec, number: int, out: Path) -> Figures:
    """Note what an evaluation file's instructions have that tells them from others."""
    problems = Problems(strict=spec.strict)
    rows = list(_asked(spec.against[number], spec.fields, problems))
    if not rows:
        why = f": {problems.listed[0][1]}" if problems.listed else ""
        raise InputError(f"{spec.against[number]} has no instruction to look for{why}")
    np.save(out / _RUNS, telling_runs(rows))
    return _told(problems)


def _asked(path: str, fields: dict[str, str], problems: Problems) -> Iterator[tuple[str, str]]:
    """(group, instruction) of each row; the answers do not matter here."""
    for where, row in read_records(path, problems):
        given = our_fields(row, fields)
        instruction = given.get("instruction")
        if isinstance(instruction, str) and not is_blank(instruction):
            yield str(given.get("group") or where), instruction
        else:
            problems.report(where, f"expected an 'instruction', got {instruction!r:.80}")


_STORE, _RUNS = "store.db", "runs.npy"


def _told(problems: Problems) -> Figures:
    return {"left_out": problems.count, "problems": problems.listed}


# ---------------------------------------------------------------------------------------------------- scatter


def scatter(spec: Spec, number: int, out: Path) -> Figures:
    """Assign an input file's instances to partitions; note the groups that its data set holds out."""
    problems = Problems(strict=spec.strict)
    buffers: dict[int, list[dict[str, Any]]] = defaultdict(list)
    buffered = rows = 0
    groups: set[int] = set()
    for _, instance in read_instances(spec.inputs[number], problems, fields=spec.fields):
        drawn = hash64(spec.seed, "split", instance.group or instance.instruction) < spec.validation * 2**64
        if (told := is_held_out(instance)) and instance.group:
            groups.add(hash64(instance.group))
        row = instance.model_dump(include=set(_COLUMNS)) | {"training": not (told or drawn)}
        buffers[hash64(instance.instruction) % spec.partitions].append(row)
        rows += 1
        buffered += 1
        if buffered >= _FLUSH:
            _flush(buffers, out)
            buffered = 0
    _flush(buffers, out)
    np.save(out / _GROUPS, np.fromiter(sorted(groups), np.uint64, len(groups)))
    return {"instances": rows, **_told(problems)}


_COLUMNS = ("id", "task", "instruction", "references", "choices", "negatives", "group")
_GROUPS = "groups.npy"
_HELD_OUT = ("valid", "val", "dev", "test", "held", "eval")


def is_held_out(instance: Instance) -> bool:
    """Does its data set hold it out?"""
    return instance.split is not None and instance.split.lower().startswith(_HELD_OUT)


def _keep_lowest(pool: list[tuple[int, str]], order: int, text: str) -> None:
    """A sample that does not depend on the order of the rows, and can be merged: the lowest hashes."""
    entry = (-order, text)
    if len(pool) < POOL:
        if entry not in pool:
            heapq.heappush(pool, entry)
    elif entry > pool[0] and entry not in pool:
        heapq.heapreplace(pool, entry)


def _flush(buffers: dict[int, list[dict[str, Any]]], out: Path) -> None:
    import pyarrow as pa

    texts = pa.list_(pa.string())
    kinds = {"references": texts, "choices": texts, "negatives": texts, "training": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in (*_COLUMNS, "training")])
    for partition, rows in buffers.items():
        append_rows(out / f"{partition}.arrow", pa.Table.from_pylist(rows, schema))
    buffers.clear()


class _Scattered:
    """A partition's rows, without the training rows of what is held out in another place.

    Held out is an instruction that validation has in any task, and a group of which its data set holds out a part.
    """

    def __init__(self, spec: Spec, number: int) -> None:
        folders = [spec.work / SCATTERED / str(file) for file in range(len(spec.inputs))]
        tables = read_rows([folder / f"{number}.arrow" for folder in folders])
        rows = [row for table in tables for row in table.to_pylist()]
        groups = {int(group) for folder in folders for group in np.load(folder / _GROUPS)}
        for row in rows:
            if groups and row["group"] and hash64(row["group"]) in groups:
                row["dropped"] = row["training"]
        held_out = {row["instruction"] for row in rows if not row["training"]}
        self.rows = [
            row
            for row in rows
            if not row.get("dropped") and (not row["training"] or row["instruction"] not in held_out)
        ]
        self.left_out = len(rows) - len(self.rows)


def pool(spec: Spec, number: int, out: Path) -> Figures:
    """Keep some of the partition's training references of each task, for all partitions to draw wrong answers from."""
    pools: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in _Scattered(spec, number).rows:
        for reference in row["references"] if row["training"] else ():
            _keep_lowest(pools[row["task"]], hash64(spec.seed, "pool", row["task"], reference), reference)
    with (out / "pools.jsonl").open("w", encoding="utf-8") as file:
        for task, kept in pools.items():
            file.write(json.dumps([task, sorted((-order, text) for order, text in kept)]) + "\n")
    return {}


def merge_pools(work: Path, partitions: int) -> None:
    """The partitions' kept references as one file a task (for this process, after `pool`)."""
    pools: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for number in range(partitions):
        with (work / POOLED / str(number) / "pools.jsonl").open(encoding="utf-8") as file:
            for line in file:
                task, kept = json.loads(line)
                pools[task].update((order, text) for order, text in kept)
    folder = work / "pools"
    folder.mkdir(exist_ok=True)
    for task, merged in pools.items():
        texts = [text for _, text in sorted(merged)[:POOL]]
        write_whole(folder / f"{hash64(task)}.json", json.dumps(texts))


# ------------------------------------------------------------------------------------------------------- pair


def pair(spec: Spec, number: int, out: Path) -> Figures:
    """Make the partition's pairs. Its instances of one instruction are one question."""
    encoder = PairEncoder.of(load_bundle(spec.bundle))
    imported = [spec.work / IMPORTED / str(number) / _STORE for number in range(len(spec.recorded))]
    stores = [SampleStore(path) for path in [*map(Path, spec.stores), *imported]]
    evaluations = Evaluations(
        [np.load(spec.work / EVALUATION / str(file) / _RUNS, mmap_mode="r") for file in range(len(spec.against))]
    )
    label = _label(spec.label)
    figures = _Figures()
    by_task = _questions(spec, number, stores, evaluations, figures)
    for task, questions in sorted(by_task.items()):
        others = _others(spec, task, questions)
        rows: dict[str, list[Any]] = {name: [] for name in _PAIR_COLUMNS}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UnscorableWarning)
            for question in questions:
                order = hash64(spec.seed, "question", task, question.instruction)
                made = pairs_of(
                    question, spec.mode, label, others, spec.mismatches, order, sampled_only=spec.sampled_only
                )
                figures.unlabelled += made.unlabelled
                figures.unmatched += made.unmatched
                figures.barren += not made.pairs
                side = SIDES[0] if question.training else SIDES[1]
                figures.available[side][task] += len(made.pairs)
                for response, score, kind in made.pairs:
                    key = hash64(spec.seed, "pair", task, question.instruction, response)
                    values = (question.instruction, response, score, kind, question.group, side, order, key)
                    for name, value in zip(_PAIR_COLUMNS, values, strict=True):
                        rows[name].append(value)
        figures.unscorable += sum(issubclass(warning.category, UnscorableWarning) for warning in caught)
        _write_pairs(out, task, rows, _lengths(encoder, rows))
    for store in stores:
        store.close()
    return figures.as_json()


_PAIR_COLUMNS = ("instruction", "response", "score", "kind", "group", "side", "order", "key")


class _Figures:
    """What is told of a partition beside its rows."""

    def __init__(self) -> None:
        self.available: dict[str, Counter[str]] = {side: Counter() for side in SIDES}
        self.unlabelled = self.unmatched = self.unscorable = self.barren = self.joined = self.sampled = 0
        self.held_out_elsewhere = 0
        self.contaminated: Counter[int] = Counter()
        self.contaminated_ids: list[str] = []

    def as_json(self) -> Figures:
        return dict(vars(self))


def _questions(
    spec: Spec, number: int, stores: Sequence[SampleStore], evaluations: Evaluations, figures: _Figures
) -> dict[str, list[Question]]:
    """The partition's questions by task, in the order in which they first stand in the input."""
    found: dict[tuple[str, str], Question] = {}
    scattered = _Scattered(spec, number)
    figures.held_out_elsewhere = scattered.left_out
    seen: set[tuple[str, str, str]] = set()
    for row in scattered.rows:
        task, instruction = row["task"], row["instruction"]
        question = found.get((task, instruction))
        if question is None:
            at = evaluations.found_in(instruction)
            if at is not None:
                figures.contaminated[at] += 1
                if len(figures.contaminated_ids) < _LISTED:
                    figures.contaminated_ids.append(row["id"])
                continue
            question = Question(task, instruction, row["id"], row["training"])
            found[task, instruction] = question
        else:
            figures.joined += 1
        question.references += row["references"]
        question.negatives += row["negatives"]
        if row["choices"] is not None:
            question.choices = [*(question.choices or ()), *row["choices"]]
        named = task, row["id"], instruction
        if named not in seen:  # an instance that stands twice has its samples once
            seen.add(named)
            answers = list(_answers(spec, row, stores))
            figures.sampled += len(answers)
            question.answers += answers
    by_task: dict[str, list[Question]] = defaultdict(list)
    for question in found.values():
        by_task[question.task].append(question)
    return by_task


_LISTED = 20


def _answers(spec: Spec, row: dict[str, Any], stores: Sequence[SampleStore]) -> Iterator[Answer]:
    instance = Instance(**{name: row[name] for name in ("id", "task", "instruction", "references")})
    judge = spec.label.removeprefix(JUDGE) if spec.label.startswith(JUDGE) else None
    for store in stores:
        marks = store.judgements(instance, judge) if judge else {}
        for _, sample, _ in store.samples(instance):
            yield Answer(sample.response, sample.quality, marks.get(sample.response))


JUDGE = "judge:"


def _label(name: str) -> LabelAnswers:
    """By name; a judge's marks are in the store, and what it has not marked has no label."""
    if name.startswith(JUDGE):
        return lambda responses, references: [float("nan")] * len(responses)
    return label_named(name)


def _others(spec: Spec, task: str, questions: Sequence[Question]) -> list[str]:
    """References to draw wrong answers from: the partition's own, and if those are few the task's pool."""
    own = dict.fromkeys(text for question in questions if question.training for text in question.references)
    if len(own) < POOL:
        kept = spec.work / "pools" / f"{hash64(task)}.json"
        own |= dict.fromkeys(json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else ())
    return [text for text in own if not is_blank(text)]


def _lengths(encoder: PairEncoder, rows: dict[str, list[Any]]) -> list[int]:
    """Tokens of each pair with its special ones; each text is encoded once."""
    counts: dict[str, int] = {}
    for name in ("instruction", "response"):
        new = [text for text in dict.fromkeys(rows[name]) if text not in counts]
        counts.update(zip(new, (tokens.length for tokens in encoder.tokens(new)), strict=True))
    pairs = zip(rows["instruction"], rows["response"], strict=True)
    return [
        min(_LONGEST, counts[instruction] + counts[response] + encoder.special_count) for instruction, response in pairs
    ]


def _write_pairs(out: Path, task: str, rows: dict[str, list[Any]], lengths: list[int]) -> None:
    import pyarrow as pa

    kinds = {"score": pa.float32(), "order": pa.uint64(), "key": pa.uint64()}
    columns = {name: pa.array(values, kinds.get(name, pa.string())) for name, values in rows.items()}
    columns |= {"task": pa.array([task] * len(lengths), pa.string()), "tokens": pa.array(lengths, pa.int32())}
    append_rows(out / "pairs.arrow", pa.table(columns))

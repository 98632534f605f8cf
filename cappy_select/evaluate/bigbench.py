"""BIG-bench with a frozen LLM, the paper's second experiment: of 17 answers, is the one that Cappy picks the best?

An LLM answers each instance in five ways (`Plan.preset("paper")`). Each way's first answer is a baseline; Cappy,
self-scoring and the oracle pick among all of them. Quality is Rouge-L F1, its mean over a task's instances, then
over tasks.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.data.instances import Instance, read_instances
from cappy_select.data.labels import rouge_l_batch
from cappy_select.data.records import SUFFIXES, Problems
from cappy_select.data.sample import import_recorded
from cappy_select.data.sources import BIGBENCH_45
from cappy_select.data.store import SampleStore, key_of
from cappy_select.errors import InputError, UnscorableWarning
from cappy_select.evaluate.intervals import Interval, paired, resampled
from cappy_select.evaluate.report import Cell, Picture, Report, Table
from cappy_select.recorded import Recorded
from cappy_select.sampling import Plan
from cappy_select.scorer import Scorer

Floats = npt.NDArray[np.float64]

PAPER_TASKS = frozenset(str(data.subset) for data in BIGBENCH_45)

WAYS = {
    "sampling": "sampling",
    "temperature": "temperature 0.9",
    "top_k": "top-k 40",
    "nucleus": "nucleus 0.95",
    "beam": "beam 4",
    "self_sum": "self-scoring (sum)",
    "self_mean": "self-scoring (mean)",
    "cappy": "Cappy",
    "against": "other scorer",
    "in_context_nucleus": "in-context + nucleus",
    "in_context_self_sum": "in-context + self-scoring",
    "in_context_cappy": "in-context + Cappy",
    "oracle": "oracle",
    "random": "random (expected)",
}
"""All that is compared: its name in JSON, and for people. The first five are the ways to sample."""

KINDS = tuple(WAYS)[:5]
_IN_CONTEXT = ("nucleus", "self_sum", "cappy")
_BASELINES = ("self_sum", "self_mean", *KINDS, "random", "against")

PAPER_SOURCE = "Tan et al. 2023, Cappy: Outperforming and Boosting Large Multi-Task LMs with a Small Scorer"
PAPER_SIZES = ("small", "base", "large", "xl", "xxl")
PAPER_ROWS: Mapping[str, tuple[float, ...]] = {
    "sampling": (11.43, 15.79, 19.62, 23.22, 25.73),
    "temperature 0.9": (12.01, 17.06, 20.05, 24.27, 27.10),
    "top-k 40": (11.52, 15.75, 19.76, 22.67, 25.82),
    "nucleus 0.95": (11.92, 16.62, 20.20, 24.17, 26.90),
    "beam 4": (16.40, 19.86, 23.48, 26.12, 29.66),
    "self-scoring (sum)": (15.08, 20.71, 24.12, 28.47, 32.02),
    "Cappy base": (23.36, 27.26, 29.83, 32.79, 36.63),
    "Cappy large": (24.45, 28.25, 30.75, 33.97, 36.93),
    "in-context + nucleus": (16.37, 20.46, 23.65, 28.64, 32.70),
    "in-context + self-scoring": (20.61, 24.42, 27.00, 32.56, 36.37),
    "in-context + Cappy large": (26.18, 28.65, 31.84, 36.41, 38.48),
}
"""Mean Rouge-L x 100 over the 45 tasks, by the size of FLAN-T5."""


class Difference(BaseModel):
    """How much better one way is than another, with intervals over tasks and over the instances of each task; None for
    a single task, and where no task has two instances."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    way: str
    minus: str
    mean: float
    tasks: Interval | None
    instances: Interval | None


class TaskReport(BaseModel):
    """One task: means over its instances. `difference` is Cappy minus self-scoring by the sum."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    n: int
    quality: dict[str, float]
    difference: Interval | None


class ModelReport(BaseModel):
    """One LLM's answers. `quality` has a mean over tasks for each of `WAYS` that there are answers for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    parameters: int | None
    n: int = Field(description="instances")
    samples: int
    missing: int = Field(description="samples that did not come, of all instances")
    incomplete: int = Field(description="instances left out, for they lack samples of a kind that others have")
    without_examples: int = Field(description="instances whose answers in context are those without, for no others are")
    unscorable: int = Field(description="instances whose references have no word that Rouge-L counts")
    cut_pairs: int = Field(description="pairs that did not fit the scorer's window")
    quality: dict[str, float]
    differences: tuple[Difference, ...]
    tasks: tuple[TaskReport, ...]

    @property
    def paper_tasks(self) -> int:
        """How many of the tasks are among the paper's 45."""
        return sum(task.task in PAPER_TASKS for task in self.tasks)


class BigbenchReport(BaseModel):
    """What each model's answers are worth, picked in each way; Rouge-L F1 as fractions of 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scorer: str
    against: str | None
    left_out: int = Field(description="instances with choices, or without references")
    models: tuple[ModelReport, ...]


@dataclass(frozen=True)
class Answered:
    """An instance with one model's answers to its instruction alone, and those to examples and instruction."""

    instance: Instance
    bare: tuple[Recorded, ...]
    in_context: tuple[Recorded, ...] = ()


# ---------------------------------------------------------------- instances and answers


def generation(instances: Iterable[Instance], limit: int | None = None) -> tuple[list[Instance], int]:
    """The first `limit` instances of each task that have references and no choices; how many have not, or have."""
    kept: dict[str, Instance] = {}
    taken: Counter[str] = Counter()
    left_out = 0
    for instance in instances:
        if instance.choices or not instance.references:
            left_out += 1
        elif key_of(instance) not in kept and (limit is None or taken[instance.task] < limit):
            taken[instance.task] += 1
            kept[key_of(instance)] = instance
    return list(kept.values()), left_out


def stored_answers(store: SampleStore, model: str, instances: Iterable[Instance]) -> list[Answered]:
    """What a store has of a model's answers to these instances; those without an answer are there too."""
    return [
        _answered(instance, [one.sample for one in store.samples(instance) if one.sample.model == model])
        for instance in instances
    ]


def recorded_answers(
    sources: Sequence[str | Path], problems: Problems, *, instances: Iterable[Instance] | None, limit: int | None
) -> tuple[dict[str, list[Answered]], int]:
    """All models' answers in sample stores and in files of recorded samples, and how many instances were left out.

    Args:
        sources: Stores, and files as `import_recorded` reads them.
        problems: Gets the rows of files that can't be read.
        instances: Answers to these only; None: to all generation instances that there are.
        limit: As `generation` takes it, when `instances` is None.

    Raises InputError when a source can't be read.
    """
    found: dict[str, tuple[Instance, list[Recorded]]] = {}
    classification: set[str] = set()
    with ExitStack() as stack:
        files = [source for source in sources if is_file_of_rows(source)]
        stores = [stack.enter_context(SampleStore(source)) for source in sources if not is_file_of_rows(source)]
        if files:
            folder = stack.enter_context(TemporaryDirectory())
            stores.insert(0, stack.enter_context(SampleStore(Path(folder) / "recorded.db", write=True)))
        for file in files:
            import_recorded(file, stores[0], problems)
            # A store knows of no choices.
            classification |= {key_of(one) for _, one in read_instances(file, Problems()) if one.choices}
        for store in stores:
            for instance, stored in store.instances():
                found.setdefault(key_of(instance), (instance, []))[1].extend(one.sample for one in stored)
    left_out = 0
    if instances is None:
        usable = (instance for key, (instance, _) in found.items() if key not in classification)
        instances, left_out = generation(usable, limit)
        left_out += len(classification)
    answers: dict[str, list[Answered]] = {}
    for instance in instances:
        by_model: dict[str, list[Recorded]] = {}
        for sample in found.get(key_of(instance), (instance, []))[1]:
            by_model.setdefault(sample.model, []).append(sample)
        for model, samples in by_model.items():
            answers.setdefault(model, []).append(_answered(instance, samples))
    return answers, left_out


def is_file_of_rows(path: str | Path) -> bool:
    """Whether the name is a file's of rows; a sample store's never is."""
    return Path(path).name.lower().removesuffix(".gz").endswith(SUFFIXES)


def _answered(instance: Instance, samples: Sequence[Recorded]) -> Answered:
    """Raises InputError when there are answers to several prompts with examples."""
    prompts = {sample.sampling["prompt"] for sample in samples if "prompt" in sample.sampling}
    if len(prompts) > 1:
        raise InputError(
            f"{instance.task}, {instance.id}: {samples[0].model} was asked with {len(prompts)} different prompts of "
            "in-context examples: keep a sample store for each way to give examples"
        )
    return Answered(
        instance,
        tuple(sample for sample in samples if "prompt" not in sample.sampling),
        tuple(sample for sample in samples if "prompt" in sample.sampling),
    )


def _way(params: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells the paper's ways to sample from each other."""
    return params.get("beams"), params.get("temperature"), params.get("top_k") or 0, params.get("top_p") or 1.0


_KIND_OF = {_way(one.params): kind for kind, one in zip(KINDS, Plan.preset("paper").samplings, strict=True)}


def kind_of(sample: Recorded) -> str | None:
    """Which of `KINDS` a sample is; None when it was asked for in another way, or that is not known."""
    return _KIND_OF.get(_way(sample.sampling))


# ---------------------------------------------------------------- measuring


def evaluate_bigbench(
    answers: Mapping[str, Sequence[Answered]],
    scorer: Scorer,
    *,
    against: Scorer | None = None,
    asked: int | None = None,
    parameters: Mapping[str, int | None] | None = None,
    left_out: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> BigbenchReport:
    """Score every answer and compare the ways to pick one.

    Args:
        answers: By model. An instance without answers of a kind that the model's others have is left out.
        scorer: Whose picks are judged; it reads the bare instruction.
        against: A second scorer, on the same answers.
        asked: Samples of an instance that were asked for; None: as many as the instance with the most has.
        parameters: Of the models, as far as they are known.
        left_out: Instances that were none of generation, for the report.
        on_progress: Called with (pairs that became known in this step, pairs in all).

    Raises InputError when there are no answers, or none of a model's instances has them all.
    """
    if not answers:
        raise InputError("there are no answers to these instances; a store's task, id and instruction must be theirs")
    complete = {model: _complete(model, rows) for model, rows in answers.items()}
    scorers = {"cappy": scorer} if against is None else {"cappy": scorer, "against": against}
    pairs = sum(len(row.bare) + len(row.in_context) for rows in complete.values() for row in rows)
    advance = partial(_advance, on_progress, pairs * len(scorers)) if on_progress else None
    return BigbenchReport(
        scorer=str(scorer.bundle),
        against=None if against is None else str(against.bundle),
        left_out=left_out,
        models=tuple(
            _model_report(model, answers[model], rows, scorers, asked, (parameters or {}).get(model), advance)
            for model, rows in complete.items()
        ),
    )


def _advance(on_progress: Callable[[int, int], None], total: int, done: int) -> None:
    on_progress(done, total)


def _complete(model: str, rows: Sequence[Answered]) -> list[Answered]:
    """Those with samples of every kind that there are, so that all means are over the same instances."""
    bare = _kinds(sample for row in rows for sample in row.bare)
    in_context = _kinds(sample for row in rows for sample in row.in_context)
    complete = [
        row
        for row in rows
        if row.bare and _kinds(row.bare) == bare and (not row.in_context or _kinds(row.in_context) == in_context)
    ]
    if not complete:
        raise InputError(f"{model}: none of {len(rows)} instances has samples of every kind")
    return complete


def _kinds(samples: Iterable[Recorded]) -> set[str | None]:
    return {kind_of(sample) for sample in samples}


def _model_report(
    model: str,
    rows: Sequence[Answered],
    complete: Sequence[Answered],
    scorers: Mapping[str, Scorer],
    asked: int | None,
    parameters: int | None,
    advance: Callable[[int], None] | None,
) -> ModelReport:
    instances = [row.instance for row in complete]
    values, cut = _values(instances, [row.bare for row in complete], scorers, advance)
    without_examples = 0
    if any(row.in_context for row in complete):
        without_examples = sum(not row.in_context for row in complete)
        shown = [row.in_context or row.bare for row in complete]
        in_context, more_cut = _values(instances, shown, scorers, advance)
        values |= {f"in_context_{way}": in_context[way] for way in _IN_CONTEXT if way in in_context}
        cut += more_cut
    by_task: dict[str, list[int]] = {}
    for number, instance in enumerate(instances):
        by_task.setdefault(instance.task, []).append(number)
    tasks = [_task_report(task, numbers, values) for task, numbers in sorted(by_task.items())]
    groups = [row.bare for row in rows] + [row.in_context for row in rows if row.in_context]
    expected = asked or max(map(len, groups))
    return ModelReport(
        model=model,
        parameters=parameters,
        n=len(complete),
        samples=sum(map(len, groups)),
        missing=sum(max(0, expected - len(group)) for group in groups),
        incomplete=len(rows) - len(complete),
        without_examples=without_examples,
        unscorable=sum(_unscorable(instance) for instance in instances),
        cut_pairs=cut,
        quality={name: float(np.mean([task.quality[name] for task in tasks])) for name in WAYS if name in values},
        differences=tuple(_differences(list(by_task.values()), values)),
        tasks=tuple(tasks),
    )


def _values(
    instances: Sequence[Instance],
    samples: Sequence[Sequence[Recorded]],
    scorers: Mapping[str, Scorer],
    advance: Callable[[int], None] | None,
) -> tuple[dict[str, Floats], int]:
    """Of each way to pick, the quality of its pick for every instance; and how many pairs were cut."""
    ends = np.cumsum([len(row) for row in samples])[:-1]
    pairs = [(one.instruction, sample.response) for one, row in zip(instances, samples, strict=True) for sample in row]
    references = [one.references for one, row in zip(instances, samples, strict=True) for _ in row]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnscorableWarning)  # the report counts them
        quality = np.split(np.array(rouge_l_batch([response for _, response in pairs], references)), ends)

    def picked(places: Iterable[int]) -> Floats:
        return np.array([row[place] for row, place in zip(quality, places, strict=True)])

    values = {"oracle": np.array([row.max() for row in quality]), "random": np.array([row.mean() for row in quality])}
    kinds = [[kind_of(sample) for sample in row] for row in samples]
    values |= {kind: picked(row.index(kind) for row in kinds) for kind in KINDS if all(kind in row for row in kinds)}
    for name, likelihoods in (
        ("self_sum", [[sample.logprob_sum for sample in row] for row in samples]),
        ("self_mean", [[sample.logprob_mean for sample in row] for row in samples]),
    ):
        if not any(None in row for row in likelihoods):
            values[name] = picked(int(np.argmax(row)) for row in likelihoods)  # type: ignore[arg-type]
    cut = 0
    for name, scorer in scorers.items():
        scored = scorer.score_detailed(pairs, on_progress=advance)
        values[name] = picked(int(np.argmax(np.nan_to_num(row, nan=-np.inf))) for row in np.split(scored.scores, ends))
        if name == "cappy":
            cut = int(np.count_nonzero(scored.cut))
    return values, cut


def _unscorable(instance: Instance) -> bool:
    """Whether even the references themselves would score 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnscorableWarning)
        return not any(rouge_l_batch(instance.references, [[text] for text in instance.references]))


def _task_report(task: str, numbers: list[int], values: Mapping[str, Floats]) -> TaskReport:
    return TaskReport(
        task=task,
        n=len(numbers),
        quality={name: float(values[name][numbers].mean()) for name in WAYS if name in values},
        difference=paired((values["cappy"] - values["self_sum"])[numbers]) if "self_sum" in values else None,
    )


def _differences(tasks: Sequence[list[int]], values: Mapping[str, Floats]) -> Iterator[Difference]:
    compared = [("cappy", baseline) for baseline in _BASELINES]
    compared += [("in_context_cappy", f"in_context_{baseline}") for baseline in ("self_sum", "nucleus")]
    for way, minus in compared:
        if way in values and minus in values:
            gains = [(values[way] - values[minus])[numbers] for numbers in tasks]
            means = [float(gain.mean()) for gain in gains]
            yield Difference(
                way=way,
                minus=minus,
                mean=float(np.mean(means)),
                tasks=paired(means) if len(means) > 1 else None,
                instances=_within(gains) if any(len(gain) > 1 for gain in gains) else None,
            )


def _within(tasks: Sequence[Floats]) -> Interval:
    """Over the instances of each task: every resample has as many of each, so tasks count the same in all of them."""
    drawn = np.mean([resampled(gain, np.ones(len(gain)), seed=(0, at)) for at, gain in enumerate(tasks)], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(mean=float(np.mean([gain.mean() for gain in tasks])), low=float(low), high=float(high))


# ---------------------------------------------------------------- the report


def bigbench_report(found: BigbenchReport) -> Report:
    """The measurement as tables and pictures."""
    several = len(found.models) > 1
    tables = [ways_table(found)]
    for model in found.models:
        named = f"{model.model}: " if several else ""
        tables.append(differences_table(model, named))
        tables.append(_tasks_table(model, named))
    tables.append(_paper_table())
    pictures = [
        Picture(
            "methods",
            "Mean Rouge-L of what each way of picking gives, by language model",
            partial(_draw_ways, found.models),
            (max(8.0, 4.5 + 2.5 * len(found.models)), 4.5),
        )
    ]
    for number, model in enumerate(found.models, 1):
        if all(task.difference for task in model.tasks):
            pictures.append(
                Picture(
                    f"tasks-{number}" if several else "tasks",
                    f"{model.model}: Cappy minus self-scoring on each task, with 95 % intervals over its instances",
                    partial(_draw_tasks, model),
                    (8.0, 1.4 + 0.25 * len(model.tasks)),
                )
            )
    return Report(
        title=f"BIG-bench: picks of {found.scorer}",
        remarks=[
            *(_said(model) for model in found.models),
            "Quality is Rouge-L F1 (the best over the references), its mean over a task's instances, then over tasks. "
            "The ways to sample are judged by their first answer; the others pick among all answers to an instance, "
            "oracle and random among those without in-context examples.",
            *([f"The other scorer is {found.against}."] if found.against else []),
            *([f"{found.left_out} instances have choices or no references: left out."] if found.left_out else []),
        ],
        tables=tables,
        pictures=pictures,
        data=found,
    )


def ways_table(found: BigbenchReport) -> Table:
    """Mean quality of every way that some model has answers for."""
    ways = [way for way in WAYS if any(way in model.quality for model in found.models)]
    return Table(
        "Mean Rouge-L, x 100",
        ("picked by", *(model.model for model in found.models)),
        [(WAYS[way], *(model.quality.get(way) for model in found.models)) for way in ways],
    )


def differences_table(model: ModelReport, named: str = "") -> Table:
    """Cappy against each baseline, in points of Rouge-L x 100."""
    rows: list[Sequence[Cell]] = [
        (
            f"{WAYS[difference.way]} minus {WAYS[difference.minus]}",
            f"{100 * difference.mean:+.1f}",
            *(
                None if each is None else f"{100 * each.low:+.1f} to {100 * each.high:+.1f}"
                for each in (difference.tasks, difference.instances)
            ),
        )
        for difference in model.differences
    ]
    return Table(
        f"{named}differences in points, with 95 % intervals",
        ("", "points", "over tasks", "over instances"),
        rows,
        "Over tasks: would it hold for other tasks? Over instances: for other instances of these tasks?",
    )


def _tasks_table(model: ModelReport, named: str) -> Table:
    ways = [way for way in ("nucleus", "self_sum", "cappy", "against", "oracle", "random") if way in model.quality]
    return Table(
        f"{named}by task",
        ("task", "instances", *(WAYS[way] for way in ways), "Cappy minus self-scoring"),
        [
            (
                task.task,
                str(task.n),
                *(task.quality[way] for way in ways),
                None if task.difference is None else str(task.difference),
            )
            for task in sorted(model.tasks, key=_gain, reverse=True)
        ],
    )


def _paper_table() -> Table:
    return Table(
        "The paper's: FLAN-T5, mean Rouge-L x 100",
        ("picked by", *PAPER_SIZES),
        [(name, *(f"{value:.2f}" for value in values)) for name, values in PAPER_ROWS.items()],
        f"{PAPER_SOURCE}. Over all 45 tasks, with FLAN-T5's answers: not comparable with other tasks or another LLM.",
    )


def _said(model: ModelReport) -> str:
    """Whose answers they are, and what they are answers to."""
    size = "" if model.parameters is None else f" ({model.parameters:,} parameters)"
    parts = [
        f"{model.model}{size} made {model.samples:,} samples; {model.missing:,} more did not come.",
        f"{model.n:,} instances of {len(model.tasks)} tasks count, {model.paper_tasks} of the paper's 45 tasks.",
    ]
    if model.incomplete:
        parts.append(f"{model.incomplete:,} instances were left out: they lack samples of a kind that others have.")
    if model.without_examples:
        parts.append(
            f"To {model.without_examples:,} instances nothing was answered with examples (they did not fit, or the "
            "calls failed): there the answers without count as those in context."
        )
    if model.unscorable:
        parts.append(f"{model.unscorable:,} instances score 0 whatever is answered: Rouge-L counts a-z and 0-9 only.")
    if model.cut_pairs:
        parts.append(f"{model.cut_pairs:,} pairs did not fit the scorer's window and were cut.")
    return " ".join(parts)


def _gain(task: TaskReport) -> float:
    return 0.0 if task.difference is None else task.difference.mean


_COLOURS = {
    **dict(zip(KINDS, ("#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5"), strict=True)),
    "self_sum": "#969696",
    "self_mean": "#cccccc",
    "cappy": "#d95f02",
    "against": "#fdae6b",
    "in_context_nucleus": "#a1d99b",
    "in_context_self_sum": "#41ab5d",
    "in_context_cappy": "#006d2c",
}


def _draw_ways(models: Sequence[ModelReport], figure: Any) -> None:
    """A group of bars a model, as in the paper's figure 2; lines where random picks and the oracle are."""
    axes = figure.subplots()
    ways = [way for way in _COLOURS if any(way in model.quality for model in models)]
    width = 0.84 / len(ways)
    for place, way in enumerate(ways):
        middles = np.arange(len(models)) + (place - (len(ways) - 1) / 2) * width
        heights = [100 * model.quality.get(way, np.nan) for model in models]
        bars = axes.bar(middles, heights, width * 0.92, color=_COLOURS[way], label=WAYS[way])
        labels = ["" if np.isnan(height) else f"{height:.1f}" for height in heights]
        axes.bar_label(bars, labels, fontsize=7, padding=3, rotation=90, bbox={"fc": "white", "ec": "none", "pad": 0.5})
    groups = np.arange(len(models))
    for way, style in (("oracle", "--"), ("random", ":")):
        heights = [100 * model.quality[way] for model in models]
        axes.hlines(heights, groups - 0.45, groups + 0.45, color="black", linestyle=style, linewidth=1, label=WAYS[way])
    axes.set_xticks(groups, [model.model for model in models])
    axes.set_xlim(-0.55, len(models) - 0.45)
    axes.set_ylabel("mean Rouge-L F1, × 100")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)


def _draw_tasks(model: ModelReport, figure: Any) -> None:
    axes = figure.subplots()
    tasks = sorted(model.tasks, key=_gain)
    gains = [task.difference for task in tasks if task.difference is not None]
    means = np.array([100 * gain.mean for gain in gains])
    sides = np.array([[100 * (gain.mean - gain.low), 100 * (gain.high - gain.mean)] for gain in gains])
    colours = [_COLOURS["cappy" if mean > 0 else "self_sum"] for mean in means]
    axes.barh(range(len(tasks)), means, 0.7, color=colours)
    axes.errorbar(means, range(len(tasks)), xerr=sides.T, fmt="none", ecolor="#444444", elinewidth=0.8, capsize=2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(tasks)), [f"{task.task} ({task.n})" for task in tasks], fontsize=8)
    axes.set_ylim(-0.7, len(tasks) - 0.3)
    axes.set_xlabel("Cappy minus self-scoring (sum), points of Rouge-L × 100")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)

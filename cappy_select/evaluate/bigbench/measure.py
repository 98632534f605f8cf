"""What the picks are worth: Rouge-L F1, its mean over a task's instances, then over tasks; differences too."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.ask.recorded import Recorded, RecordedInstance
from cappy_select.core.errors import InputError, UnscorableWarning
from cappy_select.data.instances import Instance
from cappy_select.data.labels import rouge_l_batch
from cappy_select.data.sources import BIGBENCH_45
from cappy_select.data.store_rows import key_of
from cappy_select.evaluate.baselines import baselines_of
from cappy_select.evaluate.bigbench.answers import KINDS, Answered, kind_of
from cappy_select.evaluate.intervals import Interval, paired, stratified
from cappy_select.scorer import Scorer

Floats = npt.NDArray[np.float64]

PAPER_TASKS = frozenset(str(data.subset) for data in BIGBENCH_45)

WAYS = {
    **dict(zip(KINDS, ("sampling", "temperature 0.9", "top-k 40", "nucleus 0.95", "beam 4"), strict=True)),
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
"""All that is compared: its name in JSON, and for people."""

_IN_CONTEXT = ("nucleus", "self_sum", "cappy")
_BASELINES = ("self_sum", "self_mean", *KINDS, "random", "against")


class Difference(BaseModel):
    """How much better one way is than another, with intervals over tasks and over the instances of each task; None for
    a single task, and where a task has a single instance."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    way: str
    minus: str
    mean: float
    tasks: Interval | None
    instances: Interval | None


class TaskReport(BaseModel):
    """One task: means over its instances. `difference` is Cappy minus self-scoring by the sum."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    task: str
    n: int
    quality: dict[str, float]
    difference: Interval | None


class ModelReport(BaseModel):
    """One LLM's answers. `quality` has a mean over tasks for each of `WAYS` that there are answers for."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    model: str
    parameters: int | None
    n: int = Field(description="instances")
    samples: int
    missing: int = Field(description="samples that did not come, of all instances")
    incomplete: int = Field(description="instances left out, for they lack samples of a kind that others have")
    without_examples: int = Field(description="instances whose answers in context are those without, for no others are")
    unscorable: int = Field(description="instances whose references have no word that Rouge-L counts")
    cut_pairs: int = Field(description="pairs that did not fit the scorer's window")
    unscored: int = Field(description="instances of which no answer got a number from the scorer: its picks are wrong")
    quality: dict[str, float]
    differences: tuple[Difference, ...]
    tasks: tuple[TaskReport, ...]

    @property
    def paper_tasks(self) -> int:
        """How many of the tasks are among the paper's 45."""
        return sum(task.task in PAPER_TASKS for task in self.tasks)


class BigbenchReport(BaseModel):
    """What each model's answers are worth, picked in each way; Rouge-L F1 as fractions of 1.

    Attributes:
        scorer: Name, version, precision and digest of the scorer whose picks are judged.
        against: Those of the other one; None without.
        left_out: Instances with choices, or without references.
        common: Instances that count for every model.
        models: One report for each model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    scorer: str
    against: str | None
    left_out: int = Field(description="instances with choices, or without references")
    common: int = Field(description="instances that count for every model")
    models: tuple[ModelReport, ...]


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

    Returns:
        The measurement; `bigbench_report` makes tables and pictures of it.

    Raises:
        InputError: there are no answers, or none of a model's instances has them all.
    """
    if not answers:
        raise InputError("there are no answers to these instances (in a store they go by task, id and instruction)")
    complete = {model: _complete(model, rows) for model, rows in answers.items()}
    scorers = {"cappy": scorer} if against is None else {"cappy": scorer, "against": against}
    pairs = sum(len(row.bare) + len(row.in_context) for rows in complete.values() for row in rows)
    total = pairs * len(scorers)
    advance = (lambda done: on_progress(done, total)) if on_progress else None
    return BigbenchReport(
        scorer=str(scorer.bundle),
        against=None if against is None else str(against.bundle),
        left_out=left_out,
        common=len(set.intersection(*({key_of(row.instance) for row in rows} for rows in complete.values()))),
        models=tuple(
            _model_report(model, answers[model], rows, scorers, asked, (parameters or {}).get(model), advance)
            for model, rows in complete.items()
        ),
    )


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
    values, cut, unscored = _values(instances, [row.bare for row in complete], scorers, advance)
    without_examples = 0
    if any(row.in_context for row in complete):
        without_examples = sum(not row.in_context for row in complete)
        shown = [row.in_context or row.bare for row in complete]
        in_context, more_cut, _ = _values(instances, shown, scorers, advance)
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
        unscored=unscored,
        quality={name: float(np.mean([task.quality[name] for task in tasks])) for name in WAYS if name in values},
        differences=tuple(_differences(list(by_task.values()), values)),
        tasks=tuple(tasks),
    )


def _values(
    instances: Sequence[Instance],
    samples: Sequence[Sequence[Recorded]],
    scorers: Mapping[str, Scorer],
    advance: Callable[[int], None] | None,
) -> tuple[dict[str, Floats], int, int]:
    """Of each way to pick, the quality of its pick for every instance; how many pairs were cut; how many instances
    have no score."""
    rows = [
        RecordedInstance(
            id=one.id, instruction=one.instruction, references=list(one.references), candidates=list(answers)
        )
        for one, answers in zip(instances, samples, strict=True)
    ]
    pairs = [(row.instruction, answer.said) for row in rows for answer in row.candidates]
    references = [row.references for row in rows for _ in row.candidates]
    ends = np.cumsum([len(row.candidates) for row in rows])[:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnscorableWarning)  # the report counts them
        quality = np.split(np.array(rouge_l_batch([response for _, response in pairs], references)), ends)
    scored = {name: scorer.score_detailed(pairs, on_progress=advance) for name, scorer in scorers.items()}
    scores = {name: np.split(found.scores, ends) for name, found in scored.items()}
    values = baselines_of(rows, quality, scores)
    kinds = [[kind_of(answer) for answer in row.candidates] for row in rows]
    for kind in KINDS:
        if all(kind in row for row in kinds):
            values[kind] = np.array([part[row.index(kind)] for part, row in zip(quality, kinds, strict=True)])
    unscored = sum(bool(np.isnan(part).all()) for part in scores["cappy"])
    return values, int(np.count_nonzero(scored["cappy"].cut)), unscored


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
                instances=_within(gains) if all(len(gain) > 1 for gain in gains) else None,
            )


def _within(tasks: Sequence[Floats]) -> Interval:
    """Over the instances of each task: every resample has as many of each, so tasks count the same in all of them."""
    return stratified([(1 / len(tasks), gain, np.ones(len(gain))) for gain in tasks])

"""The first half of an adaptation: instances split into two sides, and answers to all of them, in a store."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cappy_select.adapt.config import AdaptConfig
from cappy_select.adapt.folder import HELD_OUT, STORE, TRAIN, Folder
from cappy_select.adapt.split import instances_of, of_side, split, take_in
from cappy_select.ask.in_context import Example, InContext
from cappy_select.ask.recorded import Recorded
from cappy_select.ask.requests import as_plan
from cappy_select.core.errors import InputError, UnscorableWarning
from cappy_select.data.bulk import Limits, OnProgress, Outcome
from cappy_select.data.formats import Problems
from cappy_select.data.instances import Instance
from cappy_select.data.labels import label_named
from cappy_select.data.sample import Sampler
from cappy_select.data.store import SampleStore
from cappy_select.data.store_rows import Stored

RunSampler = Callable[[Callable[[OnProgress], Outcome], int], Outcome]
"""Runs the sampler, given how many samples are to come: to show a bar."""


class Side(NamedTuple):
    """What there is of one side's instances."""

    instances: int
    references: int  # instances that have some
    answered: int  # instances that have answers
    samples: int
    judged: int  # samples of which somebody said how right they are

    def as_json(self) -> dict[str, int]:
        """For the state, where instances have an older name."""
        found = self._asdict()
        return {"examples": found.pop("instances"), **found}


def side_of(store: SampleStore, folder: Path, side: Path) -> Side:
    """Count one side."""
    found = [(row, [each.sample for each in store.samples(row)]) for row in of_side(folder, side)]
    return Side(
        instances=len(found),
        references=sum(bool(row.references) for row, _ in found),
        answered=sum(bool(samples) for _, samples in found),
        samples=sum(len(samples) for _, samples in found),
        judged=sum(sample.quality is not None for _, samples in found for sample in samples),
    )


def prepare(
    config: AdaptConfig,
    folder: Path,
    store: SampleStore,
    instances: Sequence[str | Path],
    recorded: Sequence[str | Path],
    problems: Problems,
    *,
    fields: Mapping[str, str],
    limit: int | None,
    taken_in: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> dict[Path, Side]:
    """Take recorded samples in, split the instances, and see that there is something to learn from and to measure by.

    Raises InputError when there is not, before anybody is asked.
    """
    if not taken_in:
        take_in(recorded, instances, store, problems, fields)
    rows = list(instances_of(instances, recorded, store, fields, limit, problems))
    if not rows:
        why = f": {problems.listed[0][0]}: {problems.listed[0][1]}" if problems.listed else ""
        raise InputError(f"there is no instance in {', '.join(map(str, (*instances, *recorded)))}{why}")
    split(rows, folder, config.held_out, config.seed)
    sides = {side: side_of(store, folder, side) for side in (TRAIN, HELD_OUT)}
    on_stage(f"{sides[TRAIN].instances} instances to learn from, {sides[HELD_OUT].instances} held out for the report")
    for side, found in sides.items():
        if not found.references and not found.judged:
            raise InputError(
                f"nothing says what is right for the {found.instances} instances of {side.name}: instances need "
                "references, or recorded samples `correct` (or `human`)"
            )
    if not config.models:
        _check_answered(sides, "none of the recorded samples is of one (task, id and instruction must be the same)")
    if not all(found.judged == found.samples and found.samples for found in sides.values()) or config.references:
        _check_label(config.label, folder, on_stage)
    return sides


def ask(
    config: AdaptConfig,
    folder: Folder,
    store: SampleStore,
    *,
    limits: Limits | None,
    api_base: str | None,
    partial_samples: bool,
    on_stage: Callable[[str], None],
    run: RunSampler | None,
) -> dict[str, str]:
    """Ask the models for what the store has not; by name, why some of it is still missing.

    Raises InputError when it will not come, and there is too little to go on with.
    """
    stopped: dict[str, str] = {}
    if config.models:
        sampler = sampler_of(config, folder.path, store, limits, api_base)
        if wanted := sum(row.samples for row in sampler.estimate()):
            on_stage(f"asking for {wanted} samples")
            stopped = (run(sampler.run, wanted) if run else sampler.run()).stopped
        for row in sampler.estimate():
            if row.samples and row.model not in stopped:
                stopped[row.model] = f"{row.samples} samples did not come"
        if stopped and not partial_samples:
            return stopped
    last = next((failed.message for failed in store.failures()), "no model was asked")
    _check_answered({side: side_of(store, folder.path, side) for side in (TRAIN, HELD_OUT)}, last)
    return stopped


def sampler_of(
    config: AdaptConfig, folder: Path, store: SampleStore, limits: Limits | None, api_base: str | None
) -> Sampler:
    """What asks the models about both sides' instances, the held-out ones first: without them there is no report.

    Examples before the prompts are of the training side.
    """
    pool = [
        Example(input=row.instruction, output=row.references[0]) for row in of_side(folder, TRAIN) if row.references
    ]
    if config.icl and not pool:
        raise InputError("--icl needs instances with references to put before the prompts")
    return Sampler(
        partial(of_side, folder, HELD_OUT, TRAIN),
        config.models,
        store,
        samples=config.samples,
        plan=config.plan,
        examples=InContext(pool=tuple(pool), k=config.icl, seed=config.seed) if config.icl else None,
        limits=limits,
        logprobs=config.logprobs,
        api_base=api_base,
        params=config.params,
    )


def held_out_of(config: AdaptConfig, folder: Path) -> list[tuple[Instance, list[Recorded]]]:
    """The held-out instances with their answers, in the order in which they were asked for: models, plan, number."""
    plan = as_plan(config.samples, config.plan)

    def place(stored: Stored) -> tuple[Any, ...]:
        sample = stored.sample
        if sample.model not in config.models:
            return len(config.models), stored.number  # recorded ones: as they stood in the file
        asked = [sampling.params.items() <= sample.sampling.items() for sampling in plan.of(sample.model)]
        return config.models.index(sample.model), asked.index(True) if any(asked) else len(asked), stored.place

    with SampleStore(folder / STORE) as store:
        return [
            (row, [each.sample for each in sorted(store.samples(row), key=place)]) for row in of_side(folder, HELD_OUT)
        ]


def _check_answered(sides: Mapping[Path, Side], why: str) -> None:
    for side, found in sides.items():
        if not found.answered:
            raise InputError(f"none of the {found.instances} instances of {side.name} has an answer: {why}")


def _check_label(name: str, folder: Path, on_stage: Callable[[str], None]) -> None:
    """Whether the label can tell anything: an answer that is a reference is right."""
    label = label_named(name)
    asked = blind = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnscorableWarning)
        for row in of_side(folder, TRAIN, HELD_OUT):
            if row.references:
                asked += 1
                blind += max(label(row.references[:1], row.references)) == 0
    if blind == asked and asked:
        raise InputError(
            f"the label {name} finds nothing to compare in any reference (rouge_l reads a-z and 0-9 alone): try "
            "--label rouge_l_unicode or exact"
        )
    if blind:
        on_stage(
            f"the label {name} finds nothing to compare in the references of {blind} instances: answers get 0 there"
        )

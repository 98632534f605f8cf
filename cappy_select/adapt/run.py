"""An adaptation from one end to the other. Kill it at any moment and call it again: it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cappy_select.adapt.config import AdaptConfig
from cappy_select.adapt.examples import Dealt, deal, dealt, examples_of, take_in
from cappy_select.adapt.folder import (
    BASE,
    BUNDLE,
    HELD_OUT,
    PAIRS,
    PICKS,
    REPORT,
    STORE,
    TRAIN,
    TRAINING,
    Folder,
    opened,
)
from cappy_select.adapt.report import AdaptReport, measure, report_of
from cappy_select.adapt.training import groups_of, training_config
from cappy_select.bundle import MANIFEST, Bundle, load_bundle, resolve
from cappy_select.data.build import ADAPT_ROWS, BuildConfig, build
from cappy_select.data.errands import Limits, OnProgress, Outcome
from cappy_select.data.instances import Instance
from cappy_select.data.labels import label_named
from cappy_select.data.partitions import disk_errors
from cappy_select.data.records import Problems
from cappy_select.data.sample import Sampler
from cappy_select.data.store import SampleStore
from cappy_select.errors import InputError, MissingExtra
from cappy_select.evaluate.report import DATA, write_report
from cappy_select.export import Card, export_checkpoint, require_export
from cappy_select.icl import Example, InContext
from cappy_select.recorded import Recorded
from cappy_select.scorer import Scorer

OnStep = Callable[[str, int, int], None]
"""(what is being done, how much more of it is done, how much there is)"""


class Adaptation(NamedTuple):
    """How far an adaptation came: its report, or why it stopped before: models that were given up, by name, or the
    signal that stopped the training."""

    report: AdaptReport | None
    left_out: int
    failed: int = 0
    stopped: Mapping[str, str] = {}
    signal: int | None = None
    drawn: bool = True  # whether the report has its pictures


def adapt(
    examples: Sequence[str | Path],
    out: str | Path,
    config: AdaptConfig,
    *,
    recorded: Sequence[str | Path] = (),
    fields: Mapping[str, str] | None = None,
    limit: int | None = None,
    limits: Limits | None = None,
    partial_samples: bool = False,
    api_base: str | None = None,
    workers: int = 1,
    strict: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_step: OnStep = lambda step, done, total: None,
    on_samples: Callable[[Callable[[OnProgress], Outcome], int], Outcome] | None = None,
) -> Adaptation:
    """Adapt a scorer to a task.

    Args:
        examples: Files of instances; none: those that the recorded samples are of.
        out: The folder; what it holds then is listed in `cappy_select.adapt.folder`.
        config: What to do.
        recorded: Files of recorded samples, or sample stores.
        fields: Other names in the files.
        limit: Only the first instances of each file.
        limits: Of the calls.
        partial_samples: Go on with the samples that are there when a model was given up or the money is spent.
        api_base: Address of an OpenAI-compatible server.
        workers: Processes that make pairs.
        strict: Stop at the first row that can't be used.
        on_stage: Called with a few words before each long step, and when there is something to know.
        on_step: Called while it goes on.
        on_samples: Runs the sampler (given it, and how many samples are to come), to show a bar of its own.

    Raises InputError, DataError, BundleNotFound, MissingExtra, ExportError; what was done is kept.
    """
    check(examples, config, recorded)
    rest = {"fields": dict(fields or {}), "limit": limit}
    with opened(Path(out), config, examples, recorded, rest) as folder:
        problems = Problems(strict=strict)
        base = base_bundle(config, folder.path, on_stage)
        failed, stopped = 0, {}
        if folder.state["sampled"] is None:
            with SampleStore(folder / STORE, write=True) as store:
                take_in(recorded, store, problems, fields or {})
                counts = deal(
                    examples_of(examples, store, fields or {}, limit, problems),
                    folder.path,
                    config.held_out,
                    config.seed,
                )
                on_stage(f"{counts.train} examples to learn from, {counts.held_out} held out for the report")
                stopped = _sample(config, folder, store, limits, api_base, on_stage, on_samples)
                failed = sum(1 for _ in store.failures())
                if stopped and not partial_samples:
                    return Adaptation(None, problems.count, failed, stopped)
                folder.note(sampled=_sampled(store, folder, counts, problems.count, failed))
        sampled = folder.state["sampled"]
        if folder.state["result"] is None or not (folder / REPORT / DATA).is_file():
            stop = _train(config, folder, base, sampled["judged"], workers, on_stage, on_step)
            if stop is not None:
                return Adaptation(None, sampled["left_out"], sampled["failed"], stopped, stop)
            adapted = _bundle(config, folder, base, on_stage)
            on_stage("measuring on the held-out examples")
            report, picks = measure(
                held_out_of(folder.path),
                Scorer(base),
                Scorer(adapted),
                label=config.label,
                on_progress=lambda done, total: on_step("scoring", done, total),
            )
            with disk_errors(folder.path):
                (folder / REPORT).mkdir(exist_ok=True)
                (folder / PICKS).write_text("".join(json.dumps(pick) + "\n" for pick in picks), encoding="utf-8")
            drawn = write_report(folder / REPORT, report_of(report))
            folder.note(result=report.model_dump(mode="json"))
            return Adaptation(report, sampled["left_out"], sampled["failed"], stopped, drawn=drawn)
        on_stage(f"{out} holds this adaptation, finished")
        return Adaptation(AdaptReport.model_validate(folder.state["result"]), sampled["left_out"], sampled["failed"])


def sampler_of(
    config: AdaptConfig, folder: Path, store: SampleStore, limits: Limits | None, api_base: str | None
) -> Sampler:
    """What asks the models about the examples of both sides, with examples of the one side only before the prompt."""
    pool = [Example(input=row.instruction, output=row.references[0]) for row in dealt(folder, TRAIN) if row.references]
    if config.icl and not pool:
        raise InputError("--icl needs examples with references to put before the prompts")
    return Sampler(
        partial(dealt, folder, TRAIN, HELD_OUT),
        config.models,
        store,
        samples=config.samples,
        plan=config.plan,
        examples=InContext(pool=tuple(pool), k=config.icl, seed=config.seed) if config.icl else None,
        limits=limits,
        logprobs=config.logprobs,
        api_base=api_base,
        **config.params,
    )


def check(examples: Sequence[str | Path], config: AdaptConfig, recorded: Sequence[str | Path]) -> None:
    """Raises InputError when there is nothing to adapt to or a setting can't be used, MissingExtra for a package."""
    if not examples and not recorded:
        raise InputError("give a file of examples, or recorded samples")
    if not config.models and not recorded:
        raise InputError("give models to ask, or recorded samples")
    if config.models and not examples:
        raise InputError("models are asked about examples: give a file of them")
    if config.icl and not config.models:
        raise InputError("in-context examples go into models' prompts, and no model is given")
    label_named(config.label)
    training_config(config, Path(), Path(), 512, 1, 2)
    require_export()
    try:
        import jax  # noqa: F401
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("train", "adapting a scorer", error.name or "jax") from error


def base_bundle(config: AdaptConfig, folder: Path, on_stage: Callable[[str], None] = lambda stage: None) -> Bundle:
    """The scorer that is adapted, as a bundle: of a checkpoint's folder one is made in `folder` first."""
    source = None if config.scorer is None else Path(config.scorer)
    if source is None or not (source / "config.json").is_file() or (source / MANIFEST).is_file():
        return resolve(config.scorer, revision=config.revision)
    if not (folder / BASE / MANIFEST).is_file():
        on_stage(f"making a bundle of {source.name}")
        export_checkpoint(source, folder / BASE, card=Card(name=source.resolve().name), overwrite=True)
    return load_bundle(folder / BASE)


def _sample(
    config: AdaptConfig,
    folder: Folder,
    store: SampleStore,
    limits: Limits | None,
    api_base: str | None,
    on_stage: Callable[[str], None],
    on_samples: Callable[[Callable[[OnProgress], Outcome], int], Outcome] | None,
) -> dict[str, str]:
    """Ask for what the store has not; why models were given up, by name."""
    if not config.models:
        return {}
    sampler = sampler_of(config, folder.path, store, limits, api_base)
    wanted = sum(row.samples for row in sampler.outlook())
    if not wanted:
        return {}
    on_stage(f"asking for {wanted} samples")
    return (on_samples(sampler.run, wanted) if on_samples else sampler.run()).stopped


def _sampled(store: SampleStore, folder: Folder, counts: Dealt, left_out: int, failed: int) -> dict[str, Any]:
    """What is known when the last sample is there. Raises InputError when nothing can be learnt from it."""
    training = {"samples": 0, "judged": 0, "references": 0}
    for row in dealt(folder.path, TRAIN):
        found = store.samples(row)
        training["samples"] += len(found)
        training["judged"] += sum(each.sample.quality is not None for each in found)
        training["references"] += len(row.references)
    if not training["judged"] and not training["references"]:
        raise InputError(
            "nothing says what is right: examples need references, or recorded samples `correct` (or `human`)"
        )
    return {
        **counts._asdict(),
        "judged": training["judged"],
        "samples": sum(store.counts().values()),
        "spent": store.spent(),
        "left_out": left_out,
        "failed": failed,
    }


def _train(
    config: AdaptConfig,
    folder: Folder,
    base: Bundle,
    judged: int,
    workers: int,
    on_stage: Callable[[str], None],
    on_step: OnStep,
) -> int | None:
    """Pairs, then the training run; the signal that stopped it."""
    from cappy_select.train.job import train
    from cappy_select.train.run import Update

    references = config.references if config.references is not None else not (judged and config.augmentation)
    on_stage("making pairs" if references else "making pairs of the samples alone: it is known how right they are")
    how = BuildConfig(
        mode="adapt",
        label=config.label,
        sampled_only=not references,
        validation=config.validation,
        cap=ADAPT_ROWS,
        seed=config.seed,
    )
    pairs = folder / PAIRS
    told = [folder / STORE] if folder.state["sampled"]["samples"] and config.augmentation else []
    build([folder / TRAIN], pairs, config=how, samples=told, scorer=base.path, workers=workers, on_step=on_step)
    groups, widest = groups_of(pairs)
    if not groups:
        raise InputError(f"{folder.state['sampled']['train']} examples gave no pair to train on")
    chosen = training_config(config, pairs, base.path, base.manifest.max_length, groups, widest)
    seen = 0

    def on_update(update: Update) -> None:
        nonlocal seen
        on_step("training", update.step - seen, chosen.updates)
        seen = update.step
        look = update.evaluation
        if look is not None and look.accuracy is not None:
            on_stage(
                f"update {update.step} of {chosen.updates}: {100 * look.accuracy:.1f} % of the validation picks right"
            )

    return train(chosen, folder / TRAINING, resume=True, on_stage=on_stage, on_update=on_update).signal


def _bundle(config: AdaptConfig, folder: Folder, base: Bundle, on_stage: Callable[[str], None]) -> Bundle:
    """The trained checkpoint as a bundle; one that is there was made of it."""
    if (folder / BUNDLE / MANIFEST).is_file():
        return load_bundle(folder / BUNDLE)
    task = folder.path.resolve().name
    card = Card(
        name=task,
        provenance={
            "adapted_from": {"name": base.manifest.name, "version": base.manifest.version, "digest": base.digest},
            "examples": folder.state["sampled"]["train"],
            "models": sorted(config.models),
        },
        licenses=dict(base.manifest.licenses),
    )
    return export_checkpoint(
        folder / TRAINING / "model",
        folder / BUNDLE,
        precision=config.precision,
        card=card,
        overwrite=True,
        on_stage=on_stage,
    )


def held_out_of(folder: Path) -> list[tuple[Instance, list[Recorded]]]:
    """The held-out examples of an adaptation's folder, with their answers."""
    with SampleStore(folder / STORE) as store:
        return [(row, [each.sample for each in store.samples(row)]) for row in dealt(folder, HELD_OUT)]

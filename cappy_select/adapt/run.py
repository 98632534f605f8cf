"""An adaptation from one end to the other. Kill it at any moment and call it again: it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cappy_select.adapt.config import AdaptConfig
from cappy_select.adapt.folder import (
    BASE,
    BUNDLE,
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
from cappy_select.adapt.sampling import RunSampler, ask, held_out_of, prepare, side_of
from cappy_select.adapt.training import groups_of, training_config, uses_references
from cappy_select.ask.requests import as_plan
from cappy_select.bundle.bundle import Bundle, load_bundle
from cappy_select.bundle.manifest import MANIFEST
from cappy_select.bundle.resolve import resolve
from cappy_select.core.errors import InputError, MissingExtra
from cappy_select.core.files import disk_errors
from cappy_select.data.build import ADAPT_ROWS, BuildConfig, build
from cappy_select.data.bulk import Limits
from cappy_select.data.formats import Problems
from cappy_select.data.labels import label_named
from cappy_select.data.store import SampleStore
from cappy_select.evaluate.report import DATA, write_report
from cappy_select.export import Card, export_checkpoint, require_export
from cappy_select.scorer import Scorer

OnProgress = Callable[[str, int, int], None]
"""(what is being done, how much more of it is done, how much there is)"""


class Adaptation(NamedTuple):
    """How far an adaptation came: its report, or why there is none yet.

    Attributes:
        report: What it is worth; None when it stopped before.
        problems: The rows that were left out.
        stopped: Models whose samples are missing, by name, and why.
        signal: The signal that stopped the training; None when none did.
        drawn: Whether the report has its pictures.
    """

    report: AdaptReport | None
    problems: Problems
    stopped: Mapping[str, str] = {}
    signal: int | None = None
    drawn: bool = True  # whether the report has its pictures


def adapt(
    instances: Sequence[str | Path],
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
    on_progress: OnProgress = lambda stage, done, total: None,
    on_samples: RunSampler | None = None,
) -> Adaptation:
    """Adapt a scorer to a task.

    Whatever is raised, what was done is kept: the same call goes on from there.

    Args:
        instances: Files of instances; none: those that the recorded samples are of.
        out: The folder; what it holds then is listed in `cappy_select.adapt.folder`.
        config: What to do.
        recorded: Files of recorded samples, or sample stores.
        fields: Other names in the files.
        limit: Only the first instances of each file.
        limits: Of the calls.
        partial_samples: Go on with the samples that are there when others did not come, for whatever reason.
        api_base: Address of an OpenAI-compatible server.
        workers: Processes that make pairs.
        strict: Stop at the first row that can't be used.
        on_stage: Called with a few words before each long stage, and when there is something to know.
        on_progress: Called with what is being done, how much more of it is done, and how much there is.
        on_samples: Runs the sampler, to show a bar of its own.

    Returns:
        How far it came. An adaptation that is finished already is returned as it is.

    Raises:
        InputError: instances, samples, settings or the folder can't be used.
        DataError: the disk is full, or a worker died.
        BundleNotFound: there is no such scorer to begin with.
        MissingExtra: a package that this needs is not installed.
        ExportError: the trained weights can't become a bundle.
    """
    check(instances, config, recorded)
    problems = Problems(strict=strict)
    with opened(Path(out), config, instances, recorded, {"fields": dict(fields or {}), "limit": limit}) as folder:
        base = base_bundle(config, folder.path, on_stage, anew=folder.state["sampled"] is None)
        stopped: dict[str, str] = {}
        if folder.state["sampled"] is None:
            _check_start(config, base)
            with SampleStore(folder / STORE, write=True) as store:
                prepare(
                    config, folder.path, store, instances, recorded, problems,
                    fields=fields or {}, limit=limit, taken_in=folder.state["taken_in"], on_stage=on_stage,
                )  # fmt: skip
                folder.note(taken_in=True)
                stopped = ask(
                    config, folder, store,
                    limits=limits, api_base=api_base, partial_samples=partial_samples,
                    on_stage=on_stage, run=on_samples,
                )  # fmt: skip
                if stopped and not partial_samples:
                    return Adaptation(None, problems, stopped)
                side = side_of(store, folder.path, TRAIN)
            folder.note(sampled=side.as_json())
        if folder.state["result"] is None or not (folder / REPORT / DATA).is_file():
            signal = _train(config, folder, base, workers, on_stage, on_progress)
            if signal is not None:
                return Adaptation(None, problems, stopped, signal)
            adapted = _bundle(config, folder, base, on_stage)
            drawn = _report(config, folder, base, adapted, on_stage, on_progress)
        else:
            on_stage(f"{out} holds this adaptation, finished")
            drawn = True
        return Adaptation(AdaptReport.model_validate(folder.state["result"]), problems, stopped, drawn=drawn)


def check(instances: Sequence[str | Path], config: AdaptConfig, recorded: Sequence[str | Path]) -> None:
    """Raises InputError when there is nothing to adapt to or a setting can't be used, MissingExtra for a package."""
    if not instances and not recorded:
        raise InputError("give a file of instances, or recorded samples")
    if not config.models and not recorded:
        raise InputError("give models to ask, or recorded samples")
    if config.models and not instances:
        raise InputError("models are asked about instances: give a file of them")
    if config.icl and not config.models:
        raise InputError("in-context examples go into models' prompts, and no model is given")
    as_plan(config.samples, config.plan)
    label_named(config.label)
    training_config(config, Path(), Path(), 512, 1, 2)
    require_export()
    try:
        import jax  # noqa: F401
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("train", "adapting a scorer", error.name or "jax") from error


def base_bundle(
    config: AdaptConfig, folder: Path, on_stage: Callable[[str], None] = lambda stage: None, *, anew: bool = True
) -> Bundle:
    """The scorer that is adapted, as a bundle: of a checkpoint's folder one is made in `folder`, or `anew`."""
    source = None if config.scorer is None else Path(config.scorer)
    if source is None or not (source / "config.json").is_file() or (source / MANIFEST).is_file():
        return resolve(config.scorer, revision=config.revision)
    if anew or not (folder / BASE / MANIFEST).is_file():
        on_stage(f"making a bundle of {source.name}")
        export_checkpoint(source, folder / BASE, card=Card(name=source.resolve().name), overwrite=True)
    return load_bundle(folder / BASE)


def _check_start(config: AdaptConfig, base: Bundle) -> None:
    """Raises InputError when the trainer can't start from the scorer: before anybody is asked."""
    from cappy_select.train.start import starting_point

    starting_point(training_config(config, Path(), base.path, base.manifest.max_length, 1, 2))


def _train(
    config: AdaptConfig,
    folder: Folder,
    base: Bundle,
    workers: int,
    on_stage: Callable[[str], None],
    on_progress: OnProgress,
) -> int | None:
    """Pairs, then the training run; the signal that stopped it."""
    from cappy_select.train.job import train
    from cappy_select.train.run import Update

    sampled = folder.state["sampled"]
    references = uses_references(config, sampled["judged"], sampled["samples"])
    on_stage("making pairs" if references else "making pairs of the samples alone: it is known how right they are")
    pairs = folder / PAIRS
    build(
        [folder / TRAIN],
        pairs,
        config=BuildConfig(
            mode="adapt",
            label=config.label,
            sampled_only=not references,
            validation=config.validation,
            cap=ADAPT_ROWS,
            seed=config.seed,
        ),
        recorded=[folder / STORE] if sampled["samples"] and config.augmentation else [],
        scorer=base.path,
        workers=workers,
        on_progress=lambda stage, done, total: on_progress("making pairs", 1, total),
    )
    groups, widest = groups_of(pairs)
    if not groups:
        raise InputError(f"{sampled['examples']} instances gave no pair to train on")
    chosen = training_config(config, pairs, base.path, base.manifest.max_length, groups, widest)
    seen = 0

    def on_update(update: Update) -> None:
        nonlocal seen
        on_progress("training", update.step - seen, chosen.updates)
        seen = update.step
        look = update.evaluation
        if look is not None and look.accuracy is not None:
            right = f"{100 * look.accuracy:.1f} % of the validation picks are right"
            on_stage(f"update {update.step} of {chosen.updates}: {right}")

    return train(chosen, folder / TRAINING, resume=True, on_stage=on_stage, on_update=on_update).signal


def _bundle(config: AdaptConfig, folder: Folder, base: Bundle, on_stage: Callable[[str], None]) -> Bundle:
    """The trained checkpoint as a bundle; one that is there was made of it."""
    if (folder / BUNDLE / MANIFEST).is_file():
        return load_bundle(folder / BUNDLE)
    card = Card(
        name=folder.path.resolve().name,
        provenance={
            "adapted_from": {"name": base.manifest.name, "version": base.manifest.version, "digest": base.digest},
            "examples": folder.state["sampled"]["examples"],
            "models": sorted(config.models),
        },
        licenses=dict(base.manifest.licenses),
    )
    model = folder / TRAINING / "model"
    return export_checkpoint(
        model, folder / BUNDLE, precision=config.precision, card=card, overwrite=True, on_stage=on_stage
    )


def _report(
    config: AdaptConfig,
    folder: Folder,
    base: Bundle,
    adapted: Bundle,
    on_stage: Callable[[str], None],
    on_progress: OnProgress,
) -> bool:
    """Measure on the held-out side; whether there was matplotlib for the pictures."""
    on_stage("measuring on the held-out instances")
    report, picks = measure(
        held_out_of(config, folder.path),
        Scorer(base),
        Scorer(adapted),
        label=config.label,
        on_progress=lambda done, total: on_progress("scoring", done, total),
    )
    with disk_errors(folder.path):
        (folder / REPORT).mkdir(exist_ok=True)
        (folder / PICKS).write_text("".join(json.dumps(pick) + "\n" for pick in picks), encoding="utf-8")
    drawn = write_report(folder / REPORT, report_of(report))
    folder.note(result=report.model_dump(mode="json"))
    return drawn

"""What each part of the recipe is worth for a task: adaptations that lack one, on the same samples (the paper's
ablation: without pretraining, without the LLM's samples)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cappy_select.adapt.config import AdaptConfig
from cappy_select.adapt.folder import BUNDLE, STORE, TRAIN
from cappy_select.adapt.report import RECORDED, judged, scores_of
from cappy_select.adapt.run import OnProgress, adapt, base_bundle, check
from cappy_select.adapt.sampling import held_out_of, prepare
from cappy_select.adapt.training import training_config
from cappy_select.core.errors import InputError
from cappy_select.data.formats import Problems
from cappy_select.data.store import SampleStore
from cappy_select.evaluate.baselines import baselines_of
from cappy_select.evaluate.intervals import Interval, of_few, paired
from cappy_select.evaluate.report import Cell, Picture, Report, Table
from cappy_select.scorer import Scorer

FULL = "full"
_WORDS = {
    FULL: "all of it",
    "without_pretraining": "without pretraining",
    "without_augmentation": "without the LLM's samples",
    "not_adapted": "not adapted",
}


class Variant(BaseModel):
    """One way to make the scorer: quality of its picks on the held-out instances, and over that of the whole recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str
    quality: float
    over_full: Interval


class AblationReport(BaseModel):
    """The variants, beside what needs no scorer."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    n: int = Field(description="held-out instances")
    groups: int = Field(description="of them that are independent")
    quality_by: str
    random: float
    longest: float
    oracle: float
    encoder: str | None = Field(description="what `without_pretraining` started from; None: random weights")
    variants: tuple[Variant, ...]

    def report(self) -> Report:
        """For people."""
        start = f"the encoder {self.encoder}" if self.encoder else "random weights"
        by = self.quality_by.replace(RECORDED, "what was recorded of each answer")
        rows: list[list[Cell]] = [[_WORDS[each.name], each.quality, str(each.over_full)] for each in self.variants]
        rows += [["a random answer", self.random, None], ["the longest", self.longest, None]]
        rows.append(["the best that was sampled (oracle)", self.oracle, None])
        return Report(
            title="What each part of the adaptation is worth",
            remarks=[
                f"{self.n} held-out instances; quality is by {by}. Without pretraining: from {start}. "
                "Intervals: paired bootstrap over instances, against the whole recipe.",
                "All that were trained had references and mismatches to train on, and all but the one without the "
                "LLM's samples those too.",
                *of_few(self.groups),
            ],
            tables=[
                Table(
                    "Quality of the picks",
                    ["scorer", "quality", "over the whole recipe, points (95 %)"],
                    rows,
                )
            ],
            pictures=[Picture("ablation", "Quality of the picks by what the scorer was made of.", self._draw)],
            data=self,
        )

    def _draw(self, figure: Any) -> None:
        axes = figure.subplots()
        names = [_WORDS[each.name].replace(" the LLM's", "\nthe LLM's") for each in self.variants]
        colours = ["tab:green" if each.name == FULL else "tab:blue" for each in self.variants]
        bars = axes.bar(names, [100 * each.quality for each in self.variants], color=colours, width=0.6)
        axes.bar_label(bars, fmt="%.1f", padding=2)
        for value, style, name in ((self.random, ":", "random answer"), (self.oracle, "--", "oracle")):
            axes.axhline(100 * value, color="grey", linestyle=style, label=f"{name}, {100 * value:.1f} %")
        axes.set_ylim(0, min(100, 115 * self.oracle) if self.oracle else 1)
        axes.set_ylabel("quality of the picks, %")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axes.spines[["top", "right"]].set_visible(False)


def ablation(
    instances: Sequence[str | Path],
    out: str | Path,
    config: AdaptConfig,
    *,
    recorded: Sequence[str | Path],
    encoder: str | None = None,
    fields: Mapping[str, str] | None = None,
    limit: int | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> AblationReport | int:
    """Adapt with everything, without pretraining and without the LLM's samples; compare with no adaptation at all.

    Args:
        instances, config, recorded, fields, limit: As `adapt` takes them; nobody is asked, the samples are recorded,
            and references are trained on in every variant, so that a variant lacks one part and has no other instead.
        out: Each variant has a folder in it, which a killed run goes on from.
        encoder: A checkpoint that was never a scorer, for `without_pretraining`; None: the scorer's shape with random
            weights.
        on_stage, on_progress: As in `adapt`.

    Returns the signal that stopped a training, when one did; called again it goes on. Raises what `adapt` does, and
    InputError when there are no recorded samples.
    """
    if not recorded:
        raise InputError("give recorded samples: a file, or the store of `cappy sample` or `cappy adapt`")
    config = config.model_copy(update={"references": True})
    fresh = f"checkpoint={encoder}" if encoder is not None else "fresh=true"
    variants = {
        FULL: config,
        "without_pretraining": config.model_copy(update={"settings": (*config.settings, fresh)}),
        "without_augmentation": config.model_copy(update={"augmentation": False}),
    }
    _check(instances, variants, recorded, fields or {}, limit)
    scorers: dict[str, Scorer] = {}
    for name, variant in variants.items():
        on_stage(f"{_WORDS[name]}:")
        folder = Path(out) / name
        done = adapt(
            instances, folder, variant, recorded=recorded, fields=fields, limit=limit,
            on_stage=on_stage, on_progress=on_progress,
        )  # fmt: skip
        if done.signal is not None:
            return done.signal
        scorers[name] = Scorer.load(folder / BUNDLE)
    scorers["not_adapted"] = Scorer(base_bundle(config, Path(out) / FULL, anew=False))
    rows, quality, groups, by = judged(held_out_of(config, Path(out) / FULL), config.label)
    ways = baselines_of(rows, quality, scores_of(rows, scorers))
    return AblationReport(
        n=len(rows),
        groups=len(set(groups)),
        quality_by=by,
        random=float(ways["random"].mean()),
        longest=float(ways["longest"].mean()),
        oracle=float(ways["oracle"].mean()),
        encoder=None if encoder is None else Path(encoder).name,
        variants=tuple(
            Variant(name=name, quality=float(ways[name].mean()), over_full=paired(ways[name] - ways[FULL], groups))
            for name in scorers
        ),
    )


def _check(
    instances: Sequence[str | Path],
    variants: Mapping[str, AdaptConfig],
    recorded: Sequence[str | Path],
    fields: Mapping[str, str],
    limit: int | None,
) -> None:
    """Raises what one of the three trainings would, before the first of them."""
    for variant in variants.values():
        check(instances, variant, recorded)
    from cappy_select.train.start import starting_point  # imports JAX, which `check` looks for

    with TemporaryDirectory() as name:
        folder, whole = Path(name), variants[FULL]
        with SampleStore(folder / STORE, write=True) as store:
            side = prepare(whole, folder, store, instances, recorded, Problems(), fields=fields, limit=limit)[TRAIN]
        if not side.references:
            raise InputError(
                f"none of the {side.instances} instances to learn from has references, and they are all that is "
                "trained on without the LLM's samples"
            )
        base = base_bundle(whole, folder)
        for variant in variants.values():
            starting_point(training_config(variant, Path(), base.path, base.manifest.max_length, 1, 2))

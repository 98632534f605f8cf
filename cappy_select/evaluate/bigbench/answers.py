"""Answers to BIG-bench's generation instances, from stores and files, and how each of them was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cappy_select.ask.recorded import Recorded
from cappy_select.ask.sampling import Plan
from cappy_select.core.errors import InputError
from cappy_select.data.formats import Problems, is_rows
from cappy_select.data.instances import Instance, read_instances
from cappy_select.data.sample import import_recorded
from cappy_select.data.store import SampleStore
from cappy_select.data.store_rows import Key, canonical, key_of

KINDS = ("sampling", "temperature", "top_k", "nucleus", "beam")
"""The paper's ways to sample, in the order of `Plan.preset("paper")`."""


@dataclass(frozen=True)
class Answered:
    """An instance with one model's answers.

    Attributes:
        instance: What was asked.
        bare: Answers to its instruction alone.
        in_context: Answers to examples and instruction.
    """

    instance: Instance
    bare: tuple[Recorded, ...]
    in_context: tuple[Recorded, ...] = ()


def generation(instances: Iterable[Instance], limit: int | None = None) -> tuple[list[Instance], int]:
    """The first `limit` instances of each task that have references and no choices.

    Args:
        instances: Those of any tasks; one that occurs twice counts once.
        limit: Instances of each task; None: all.

    Returns:
        (instances, left out): how many were left out for they have choices, or no references.
    """
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
    """What a store has of a model's answers to these instances; those without an answer are there too.

    Args:
        store: A sample store, open.
        model: The name that the samples are stored under.
        instances: What was asked.

    Returns:
        One entry for each instance, in their order.

    Raises:
        InputError: an instance has answers to several prompts with examples.
    """
    return [
        _answered(instance, [one.sample for one in store.samples(instance) if one.sample.model == model])
        for instance in instances
    ]


def recorded_answers(
    sources: Sequence[str | Path], problems: Problems, *, instances: Iterable[Instance] | None, limit: int | None
) -> tuple[dict[str, list[Answered]], int]:
    """All models' answers in sample stores and in files of recorded samples, and how many instances were left out.

    A sample that was found already, by instance, model, sampling and number, does not count again.

    Args:
        sources: Stores, and files as `import_recorded` reads them.
        problems: Gets the rows of files that can't be read.
        instances: Answers to these only; None: to all generation instances that there are.
        limit: As `generation` takes it, when `instances` is None.

    Returns:
        (answers by model, instances left out). An instance that a model did not answer is not among that model's.

    Raises:
        InputError: a source can't be read, or has answers to several prompts with examples for one instance.
    """
    found: dict[str, tuple[Instance, list[Recorded]]] = {}
    classification: set[str] = set()
    with ExitStack() as stack:
        files = [source for source in sources if is_rows(source)]
        stores = [stack.enter_context(SampleStore(source)) for source in sources if not is_rows(source)]
        if files:
            folder = stack.enter_context(TemporaryDirectory())
            stores.insert(0, stack.enter_context(SampleStore(Path(folder) / "recorded.db", write=True)))
        for file in files:
            import_recorded(file, stores[0], problems)
            # A store knows of no choices.
            classification |= {key_of(one) for _, one in read_instances(file, Problems()) if one.choices}
        seen: set[tuple[str, Key]] = set()  # a store may be given beside its copy
        for store in stores:
            for instance, stored in store.instances():
                kept = found.setdefault(key_of(instance), (instance, []))[1]
                for one in stored:
                    key = key_of(instance), Key(one.sample.model, canonical(one.sample.sampling), one.place)
                    if key not in seen:
                        seen.add(key)
                        kept.append(one.sample)
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
    """Which of `KINDS` a sample is; None when it was asked for in another way, or that is not known.

    Args:
        sample: An answer with its `sampling`.

    Returns:
        `sampling`, `temperature`, `top_k`, `nucleus`, `beam` or None.
    """
    return _KIND_OF.get(_way(sample.sampling))

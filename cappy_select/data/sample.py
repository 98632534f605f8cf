"""Instances x plan x models -> samples in a store; what is there already is not asked for again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cappy_select.ask.calls import Call
from cappy_select.ask.in_context import InContext
from cappy_select.ask.parameters import given, owned
from cappy_select.ask.providers import Provider, as_providers
from cappy_select.ask.recorded import Recorded
from cappy_select.ask.requests import RequestPlanner, as_plan
from cappy_select.ask.sampling import Plan
from cappy_select.core import background
from cappy_select.core.errors import InputError, ProviderError, validation_message
from cappy_select.core.types import Candidate, Message, total_cost
from cappy_select.data.bulk import BulkCall, Limits, OnProgress, Outcome, likely_price, run_bulk
from cappy_select.data.formats import Problems, read_records
from cappy_select.data.hashing import hash64
from cappy_select.data.instances import Instance, instance_of, stem_of
from cappy_select.data.store import SampleStore
from cappy_select.data.store_rows import Key, canonical, key_of, storable
from cappy_select.text.instruction import as_messages
from cappy_select.text.messages import response_text

FINAL = frozenset({"content_policy", "context_window", "bad_request"})  # kinds that asking again does not mend
_BATCH = 500  # recorded instances a transaction


@dataclass(frozen=True)
class Estimate:
    """What a run would do with one model. `cost` is dollars, None when the price is unknown."""

    model: str
    stored: int
    samples: int
    calls: int
    cost: float | None
    failed_before: int


class Sampler:
    """What to ask of which models about which instances, and where the answers go.

    Args:
        instances: Makes them anew each time it is called; one pass a model.
        models: Names or providers, as `Selector` takes them.
        store: Opened for writing.
        samples, plan: As `Selector` takes them.
        examples: In-context examples for the models; the store's key of such a sample has a digest of the prompt.
        limits: Of time, money and concurrency.
        logprobs: Ask for log-likelihoods too.
        retry_failed: Ask again what failed for good before (refused, too long, a bad request).
        api_base: Address of an OpenAI-compatible server, for the models given by name.
        params: Call parameters, passed with every call.
        **known: OpenAI's call parameters and those of a `Sampling` by name.

    Raises InputError: as `Selector` does; also for two models of one name.
    """

    def __init__(
        self,
        instances: Callable[[], Iterable[Instance]],
        models: Sequence[str | Provider],
        store: SampleStore,
        *,
        samples: int | None = None,
        plan: Plan | Mapping[str, Any] | str | Path | None = None,
        examples: InContext | None = None,
        limits: Limits | None = None,
        logprobs: bool = False,
        retry_failed: bool = False,
        api_base: str | None = None,
        params: Mapping[str, Any] | None = None,
        **known: Any,
    ) -> None:
        own = owned(given(type(self).__init__, params, known, name="Sampler"), type(self).__init__)
        self._instances, self._store, self._retry_failed = instances, store, retry_failed
        self._limits = limits or Limits()
        providers = as_providers(models, api_base=api_base)
        if twice := [name for name, count in Counter(p.model for p in providers).items() if count > 1]:
            raise InputError(f"{', '.join(twice)}: given twice; --samples says how often a model is asked")
        asked = as_plan(samples, plan)
        config = self._limits.fan_out().model_copy(update={"max_cost": self._limits.max_cost})
        RequestPlanner(providers, asked, examples, config, logprobs=logprobs, params=own)  # a contradiction is said now
        self._params = own
        self._planner = {
            provider.model: RequestPlanner(
                [provider],
                asked.model_copy(
                    update={"overrides": {name: of for name, of in asked.overrides.items() if name == provider.model}}
                ),
                examples,
                config,
                logprobs=logprobs,
                params=own,
            )
            for provider in providers
        }

    def estimate(self) -> list[Estimate]:
        """What is left to do, for each model."""
        return [self._estimate(model) for model in self._planner]

    def run(self, on_progress: OnProgress = lambda outcome: None) -> Outcome:
        """Ask, and store what comes. Can be interrupted at any moment and called again.

        Raises InputError when the limits can't be kept, DataError when the store can't be written.
        """
        return background.run(self.arun(on_progress))

    async def arun(self, on_progress: OnProgress = lambda outcome: None) -> Outcome:
        """`run` for async callers."""
        lines = [(model, self._bulk_calls(model)) for model in self._planner]
        return await run_bulk(lines, self._limits, self._store, on_progress=on_progress)

    def _distinct(self) -> Iterator[Instance]:
        """An instance that stands twice is asked about once."""
        seen: set[str] = set()
        for instance in self._instances():
            if (key := key_of(instance)) not in seen:
                seen.add(key)
                yield instance

    def _bulk_calls(self, model: str) -> Iterator[BulkCall]:
        for instance in self._distinct():
            for call, keys in self._missing(model, instance):
                yield _bulk_call(self._store, instance, call, keys)

    def _missing(self, model: str, instance: Instance) -> Iterator[tuple[Call, list[Key]]]:
        """The calls for what the store has not, each with the keys of its answers."""
        have = self._store.keys(instance)
        if not self._retry_failed:
            have |= self._store.failed(instance, FINAL)
        bare = as_messages(instance.instruction)
        for call, keys in _keyed(self._planner[model].ask(bare, self._params, allowed=self._params.keys()).calls, bare):
            for start, count in _runs([key not in have for key in keys]):
                yield _part(call, start, count), keys[start : start + count]

    def _estimate(self, model: str) -> Estimate:
        stored = samples = calls = failed = 0
        costs: list[float | None] = []
        for instance in self._distinct():
            have, lost = self._store.keys(instance), self._store.failed(instance, FINAL)
            stored += sum(key.model == model for key in have)
            failed += sum(key.model == model for key in lost)
            for call, keys in self._missing(model, instance):
                calls += 1
                samples += len(keys)
                costs.append(likely_price(call))
        return Estimate(model, stored, samples, calls, total_cost(costs), failed)


def _keyed(calls: Iterable[Call], bare: Sequence[Message]) -> Iterator[tuple[Call, list[Key]]]:
    """The calls to one model with the key of each answer.

    The seed in a key is the plan's own; a prompt that is more than the bare instruction shows as a digest.
    """
    places: Counter[str] = Counter()
    for call in calls:
        request = call.request
        params = {name: value for name, value in request.params.items() if name != "logprobs"}
        if call.sampling.seed is not None:
            params["seed"] = call.sampling.seed - request.sample
        if request.messages != bare:
            params["prompt"] = hashlib.sha256(json.dumps(request.messages).encode()).hexdigest()[:16]
        name = canonical(params)
        first, places[name] = places[name], places[name] + request.n
        yield call, [Key(call.provider.model, name, place) for place in range(first, first + request.n)]


def _runs(wanted: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """(start, length) of each run of what is wanted."""
    start = None
    for place, yes in enumerate([*wanted, False]):
        if yes and start is None:
            start = place
        elif not yes and start is not None:
            yield start, place - start
            start = None


def _part(call: Call, start: int, count: int) -> Call:
    """The call, for `count` of its answers from the `start`-th on."""
    if (start, count) == (0, call.request.n):
        return call
    seed = None if call.sampling.seed is None else call.sampling.seed + start
    sampling = call.sampling.model_copy(update={"n": count, "seed": seed})
    params = call.request.params | ({} if seed is None else {"seed": seed})
    request = call.request.model_copy(update={"n": count, "sample": call.request.sample + start, "params": params})
    return Call(call.provider, request, call.breaker, sampling)


def _bulk_call(store: SampleStore, instance: Instance, call: Call, keys: list[Key]) -> BulkCall:
    first = call.request.sample
    got: set[Key] = set()

    def keep(answer: Candidate, number: int) -> None:
        key = keys[number - first]
        store.add(instance, [(key, _recorded(answer))])
        got.add(key)

    def fail(failures: Sequence[ProviderError]) -> None:
        if lost := [key for key in keys if key not in got]:
            store.add_failures(instance, lost, failures[-1].kind, failures[-1].message)

    return BulkCall(call, keep, fail)


def _recorded(candidate: Candidate) -> Recorded:
    return Recorded(
        model=candidate.model,
        response=storable(response_text(candidate.message)),
        finish_reason=candidate.finish_reason and storable(candidate.finish_reason),
        usage=candidate.usage,
        cost=candidate.cost,
        latency_s=candidate.latency_s,
        logprob_sum=candidate.logprob_sum,
        logprob_mean=candidate.logprob_mean,
    )


def import_recorded(
    path: str | Path,
    store: SampleStore,
    problems: Problems,
    *,
    fields: Mapping[str, str] | None = None,
    models: Collection[str] = (),
    task: str | None = None,
) -> int:
    """Take recorded samples into a store; returns how many are new.

    A file that was taken in before adds nothing but what is newly known (`correct`, `human`); other answers of the same
    model to the same instance are added.

    Args:
        path: Instances with `candidates[{model, response, correct | human, sampling, logprob_sum, ...}]`, in any
            kind of file that `read_records` reads; one row or several an instance.
        store: Opened for writing.
        problems: Gets rows that can't be read.
        fields: Other names in the file.
        models: Only those of these models; none: all.
        task: For rows without one; None: the file's name.
    """
    new = 0
    occurrences: Counter[int] = Counter()
    batch: list[tuple[Instance, list[tuple[Recorded, int]]]] = []
    for where, row in read_records(path, problems):
        row.setdefault("references", [])
        instance = instance_of(row, where, problems, fields=fields, task=task or stem_of(path))
        candidates = _candidates(row.get("candidates"), where, problems) if instance is not None else None
        if instance is None or candidates is None:
            continue
        rows = []
        for candidate in candidates:
            if not models or candidate.model in models:
                named = hash64(key_of(instance), candidate.model, canonical(candidate.sampling), candidate.response)
                rows.append((candidate, occurrences[named]))
                occurrences[named] += 1
        batch.append((instance, rows))
        if len(batch) >= _BATCH:
            new += store.add_recorded(batch)
            batch = []
    return new + store.add_recorded(batch)


def _candidates(given: Any, where: str, problems: Problems) -> list[Recorded] | None:
    try:
        if not isinstance(given, list) or not given:
            raise InputError("expected candidates[{model, response}]")
        read = [Recorded.model_validate(candidate) for candidate in given]
        for answer in read:  # what the store can't hold is said here, where it is known which row has it
            canonical(answer.sampling)
        # What is behind the thinking is labelled and scored.
        return [answer.model_copy(update={"response": storable(answer.said)}) for answer in read]
    except ValidationError as error:
        problems.report(where, f"candidates: {validation_message(error)}")
    except InputError as error:
        problems.report(where, str(error))
    except RecursionError:
        problems.report(where, "candidates: a sampling is nested too deeply")
    return None

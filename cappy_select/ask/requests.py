"""What one selection asks of each provider: the plan, as far as it can be honoured, after the in-context examples."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cappy_select.ask.calls import Call, price_of
from cappy_select.ask.in_context import InContext
from cappy_select.ask.limits import FanOutConfig
from cappy_select.ask.providers import Capabilities, Provider
from cappy_select.ask.sampling import MAX_SAMPLES, PARAMETERS, Plan, Sampling, calls_of, honoured
from cappy_select.core.errors import InputError
from cappy_select.core.masking import masked
from cappy_select.core.types import Downgrade, Request, Usage

_logger = logging.getLogger(__name__)


class PlannedCalls(NamedTuple):
    """The calls to make, what no provider could be asked for, and how many examples each model sees."""

    calls: list[Call]
    downgrades: tuple[Downgrade, ...]
    examples: dict[str, int]


class RequestPlanner:
    """Plan and providers of a Selector, checked against each other.

    Raises InputError, before any call is paid for: a provider can't honour the plan, or has no price for a
    money limit, or counts no tokens for the examples' limit; too many or too few answers are asked for.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        plan: Plan,
        examples: InContext | None,
        config: FanOutConfig,
        *,
        logprobs: bool,
        params: Mapping[str, Any],
    ) -> None:
        self.providers, self.plan, self.examples = providers, plan, examples
        self._config, self._logprobs = config, logprobs
        self._logged: set[tuple[str, ...]] = set()  # downgrades: each kind once
        self._abilities = [Capabilities.of(provider) for provider in providers]
        self._breakers = [
            config.breaker(masked(str(provider.model)), able.max_concurrency)
            for provider, able in zip(providers, self._abilities, strict=True)
        ]
        if examples is not None and not isinstance(examples, InContext):
            raise InputError(f"examples must be an InContext, got {type(examples).__name__}")
        for provider, able in zip(providers, self._abilities, strict=True):
            if config.max_cost is not None:
                self.need_price(provider, "max_cost")
            if examples is not None and examples.max_tokens and able.count_tokens is None:
                raise InputError(f"the examples' max_tokens can't be kept: {provider.model} does not count tokens")
            if logprobs and able.cannot("logprobs", True):
                raise InputError(f"this strategy needs log-probabilities, which {provider.model} does not give")
        if unknown := sorted(plan.overrides.keys() - {provider.model for provider in providers}):
            raise InputError(f"the plan {plan.name!r} has overrides for {', '.join(unknown)}, not asked here")
        self._guard(params)
        self._samplings(params)  # a parameter that can't be is said now
        answers = sum(plan.answers(provider.model) for provider in providers)
        if config.min_usable > answers:
            raise InputError(
                f"min_usable={config.min_usable} can't be met by {answers} answers of {len(providers)} models"
            )
        if answers > config.max_candidates:
            raise InputError(f"{answers} answers are asked for, max_candidates={config.max_candidates}")

    def need_price(self, provider: Provider, what: str) -> None:
        """Raises InputError when the provider does not know what it costs."""
        if price_of(provider, Usage(prompt_tokens=1)) is None:
            raise InputError(f"{what} needs the price of {provider.model}, which is unknown")

    def ask(
        self, messages: tuple[dict[str, Any], ...], params: Mapping[str, Any], *, allowed: Collection[str] = ()
    ) -> PlannedCalls:
        """The calls for one prompt. `allowed`: those of the parameters that the panel's owner set, or allows by name.

        Raises InputError for a parameter that the plan or a provider does not take.
        """
        self._guard(params)
        samplings_of, downgrades = self._samplings(params)
        for downgrade in downgrades:
            if (said := (downgrade.model, *sorted(downgrade.left_out))) not in self._logged:
                self._logged.add(said)
                model, *names = said
                _logger.info("%s: asked without %s, which it does not take", masked(model), ", ".join(names))
        others = {name: value for name, value in params.items() if name not in PARAMETERS}
        if self._logprobs:
            others["logprobs"] = True
        calls, examples = [], {}
        asked = zip(self.providers, self._abilities, self._breakers, samplings_of, strict=True)
        for provider, able, breaker, samplings in asked:
            prompt = messages
            if self.examples is not None:
                prompt, examples[provider.model] = _with_examples(self.examples, able, messages, samplings)
            several = breaker.gives_n and able.unsupported is not None and not able.cannot("n", 2)
            for first, sampling in calls_of(samplings, several=several):
                request = Request(
                    messages=prompt,
                    n=sampling.n,
                    sample=first,
                    timeout_s=self._config.deadline_s,
                    params=others | sampling.params,
                    allowed=frozenset(allowed),
                )
                calls.append(Call(provider, request, breaker, sampling))
        return PlannedCalls(calls, downgrades, examples)

    def _guard(self, params: Mapping[str, Any]) -> None:
        """Raises InputError for a parameter that a provider would act upon, where a model should."""
        for provider, able in zip(self.providers, self._abilities, strict=True):
            if able.acted_upon is not None and (own := sorted(able.acted_upon(params))):
                raise InputError(
                    f"{', '.join(own)} can't be a call parameter: the library that asks {provider.model} acts upon it "
                    f"itself. Only its owner can set it: {type(provider).__name__}(MODEL, params={{...}})"
                )

    def _samplings(self, params: Mapping[str, Any]) -> tuple[list[tuple[Sampling, ...]], tuple[Downgrade, ...]]:
        """How each provider is sampled, and what it can't do."""
        plan = self.plan.with_params(params)
        asked: list[tuple[Sampling, ...]] = []
        downgrades: tuple[Downgrade, ...] = ()
        for provider, able in zip(self.providers, self._abilities, strict=True):
            samplings, left_out = honoured(plan, provider.model, able.unsupported or (lambda params: ()))
            asked.append(samplings)
            downgrades += left_out
        return asked, downgrades


def as_plan(samples: int | None, plan: Plan | Mapping[str, Any] | str | Path | None) -> Plan:
    """The plan given, or the one that `samples` is short for. Raises InputError."""
    if plan is not None:
        if samples is not None:
            raise InputError("give samples or a plan, not both: a plan says how many answers it asks for")
        return Plan.load(plan)
    if samples is None:
        return Plan.preset("quick")
    if not isinstance(samples, int) or isinstance(samples, bool) or not 1 <= samples <= MAX_SAMPLES:
        raise InputError(f"samples must be a whole number from 1 to {MAX_SAMPLES}, got {samples!r}")
    return Plan(name=f"{samples} samples", samplings=(Sampling(n=samples),))


def _with_examples(
    examples: InContext, able: Capabilities, messages: tuple[dict[str, Any], ...], samplings: Iterable[Sampling]
) -> tuple[tuple[dict[str, Any], ...], int]:
    """As many examples as the model's window takes beside its longest answer."""
    if able.count_tokens is None or able.max_prompt_tokens is None:
        return examples.apply(messages)
    answer = max((sampling.max_tokens or 0 for sampling in samplings), default=0)
    return examples.apply(messages, count_tokens=able.count_tokens, room=able.max_prompt_tokens(answer or None))

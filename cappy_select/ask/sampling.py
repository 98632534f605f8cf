"""What to ask of each model: how many answers, and how each is sampled.

A plan is a value: it can be written to a file and read again, and says what it asks of any model. What a
provider can't honour is an error that names the parameter, or, if the plan allows it, left out and recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cappy_select.ask.parameters import all_of, squashed
from cappy_select.core.errors import InputError, validation_message
from cappy_select.core.json_text import loads
from cappy_select.core.types import Downgrade

MAX_SAMPLES = 1000  # of one kind from one model; each is paid for


class Sampling(BaseModel):
    """One way of sampling, and how many answers to draw in it. None leaves a parameter to the provider.

    Attributes:
        n: Answers, 1 to 1,000.
        temperature: 0 or more.
        top_p: Share of the probability that the likeliest tokens drawn from have together, in (0, 1].
        top_k: How many of the likeliest tokens are drawn from; 0 is no limit.
        beams: Width of a beam search, which draws nothing at random and excludes the three above.
        seed: A call whose first answer is number k of those asked of a model gets `seed + k`: the same seed twice would
            give the same answer twice.
        max_tokens: Tokens of an answer at most.
        min_tokens: Tokens of an answer at least.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    n: int = Field(1, ge=1, le=MAX_SAMPLES)
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    beams: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=1, strict=True)
    min_tokens: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Sampling:
        drawn = [name for name in ("temperature", "top_p", "top_k") if getattr(self, name) is not None]
        if self.beams is not None and drawn:
            raise ValueError(f"beams and {', '.join(drawn)} exclude each other: a beam search draws nothing")
        if self.beams is not None and self.n > self.beams:
            raise ValueError(f"a search of {self.beams} beams has no {self.n} answers")
        if self.max_tokens is not None and (self.min_tokens or 0) > self.max_tokens:
            raise ValueError(f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}")
        return self

    @property
    def params(self) -> dict[str, Any]:
        """What is set, by name; without `n`."""
        return self.model_dump(exclude_none=True, exclude={"n"})


PARAMETERS = frozenset(Sampling.model_fields) - {"n"}

_LIMITS = frozenset({"maxtokens", "maxcompletiontokens"})
_LIMITS_OF_OTHERS = frozenset({"maxoutputtokens", "maxnewtokens", "maxtokenstosample", "numpredict", "npredict"})


def token_limit(params: Mapping[str, Any]) -> int | None:
    """How many tokens an answer may have: the larger of OpenAI's two names, in an `extra_body` and in any spelling too
    (servers in Go read `Max_Tokens` as `max_tokens`), and of other servers' names beside them; None without.

    Raises InputError for one that is no whole number of at least 1: money limits go by it.
    """
    limits: list[int] = []
    others: list[int] = []  # if they are such
    for name, value in all_of(params):
        plain = squashed(name)
        if plain in _LIMITS and value is not None:
            if type(value) is not int or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r:.80}")
            limits.append(value)
        elif plain in _LIMITS_OF_OTHERS and value is not None:
            others.append(value)
    others_hold = all(type(value) is int and value >= 1 for value in others)  # -1 is no limit, for some
    if not limits or not others_hold:
        return None
    return max([*limits, *others])


Preset = Literal["single", "quick", "paper"]


class Plan(BaseModel):
    """What to ask of every model, and what of some (`overrides`, by model name) instead.

    Args:
        name: Recorded in the Selection.
        samplings: What is asked of every model that has no override.
        overrides: By model name.
        on_unsupported: What to do with a parameter that a provider can't honour: `error`, or `downgrade`: leave it out
            and record that.
        accept_cut_off: Answers that ended at their token limit can win: `max_tokens` is short on purpose.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str = "custom"
    samplings: tuple[Sampling, ...] = Field(min_length=1)
    overrides: dict[str, Annotated[tuple[Sampling, ...], Field(min_length=1)]] = Field(default_factory=dict)
    on_unsupported: Literal["error", "downgrade"] = "error"
    accept_cut_off: bool = False

    @classmethod
    def preset(cls, name: Preset | str) -> Plan:
        """A plan by its name.

        Args:
            name: `single`: one answer. `quick`: four. `paper`: the 17 of Cappy's BIG-bench experiment: 4 plain samples,
                4 at temperature 0.9, 4 of the 40 likeliest tokens, 4 of the nucleus 0.95 and the best of 4 beams, each
                of 3 to 64 tokens.

        Returns:
            The plan.

        Raises:
            InputError: there is no plan of this name.
        """
        if name not in _PRESETS:
            raise InputError(f"there is no plan {name!r}; there are {', '.join(_PRESETS)}")
        return _PRESETS[name]

    @classmethod
    def load(cls, source: Plan | Mapping[str, Any] | str | Path) -> Plan:
        """A plan as it is, a mapping, the name of a preset, or a JSON file.

        Args:
            source: The plan; its fields; or a name or path, of which an existing file wins.

        Returns:
            The plan.

        Raises:
            InputError: there is no such file or preset, or what it holds is no plan.
        """
        if isinstance(source, Plan):
            return source
        where, value = "plan", source
        if isinstance(source, str | Path):
            if not Path(source).is_file():
                return cls.preset(str(source))
            where = str(source)
            try:
                value = loads(Path(source).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise InputError(f"{source} can't be read as a plan: {error}") from error
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise InputError(f"{where}: {validation_message(error)}") from error

    def of(self, model: str) -> tuple[Sampling, ...]:
        """What is asked of this model.

        Args:
            model: Its provider's name.

        Returns:
            The ways of sampling, in the order in which they are asked for.
        """
        return self.overrides.get(model, self.samplings)

    def answers(self, model: str) -> int:
        """How many answers are asked of this model.

        Args:
            model: Its provider's name.

        Returns:
            The sum over its ways of sampling.
        """
        return sum(sampling.n for sampling in self.of(model))

    def with_params(self, params: Mapping[str, Any]) -> Plan:
        """This plan with sampling parameters given beside it.

        Args:
            params: Call parameters; those that are not a `Sampling`'s are passed over.

        Returns:
            A plan whose every sampling has them; this one when there are none.

        Raises:
            InputError: the plan sets one itself, a value can't be, or a limit of tokens is none.
        """
        token_limit(params)
        given = {name: value for name, value in params.items() if name in PARAMETERS and value is not None}
        if not given:
            return self
        asked = (*self.samplings, *(sampling for many in self.overrides.values() for sampling in many))
        if twice := sorted({name for sampling in asked for name in sampling.params if name in given}):
            raise InputError(f"{', '.join(twice)}: set by the plan {self.name!r} already; change the plan instead")
        try:
            changed = {
                "samplings": [sampling.model_dump() | given for sampling in self.samplings],
                "overrides": {name: [s.model_dump() | given for s in many] for name, many in self.overrides.items()},
            }
            return type(self).model_validate(self.model_dump() | changed)
        except ValidationError as error:
            raise InputError(validation_message(error)) from error


_CUT = {"max_tokens": 64, "min_tokens": 3}
_PRESETS = {
    "single": Plan(name="single", samplings=(Sampling(),)),
    "quick": Plan(name="quick", samplings=(Sampling(n=4),)),
    "paper": Plan(
        name="paper",
        samplings=(
            Sampling(n=4, temperature=1.0, top_k=0, top_p=1.0, **_CUT),
            Sampling(n=4, temperature=0.9, top_k=0, top_p=1.0, **_CUT),
            Sampling(n=4, temperature=1.0, top_k=40, top_p=1.0, **_CUT),
            Sampling(n=4, temperature=1.0, top_k=0, top_p=0.95, **_CUT),
            Sampling(beams=4, **_CUT),
        ),
        accept_cut_off=True,
    ),
}


def honoured(
    plan: Plan, model: str, unsupported: Callable[[Mapping[str, Any]], Collection[str]]
) -> tuple[tuple[Sampling, ...], tuple[Downgrade, ...]]:
    """What of the plan a model does, and what is left out. Raises InputError when the plan allows no downgrade.

    `unsupported` says which of some parameters the model's provider can't honour.
    """
    samplings, downgrades = [], []
    for sampling in plan.of(model):
        names = unsupported(sampling.params)
        odd = {name: value for name, value in sampling.params.items() if name in names}
        if odd and plan.on_unsupported == "error":
            raise InputError(
                f"{model} can't do {', '.join(f'{name}={value}' for name, value in odd.items())} (asked by the plan "
                f"{plan.name!r}); leave it out, or allow it: Plan(..., on_unsupported='downgrade')"
            )
        if odd:
            sampling = sampling.model_copy(update=dict.fromkeys(odd))
            downgrades.append(Downgrade(model=model, left_out=odd, answers=sampling.n))
        samplings.append(sampling)
    return tuple(samplings), tuple(downgrades)


def calls_of(samplings: Collection[Sampling], *, several: bool) -> Iterator[tuple[int, Sampling]]:
    """One entry a call: the number of the first answer it asks for, and how.

    `several`: one call can bring several answers; else each call asks for one.
    """
    first = 0
    for sampling in samplings:
        seed = None if sampling.seed is None else sampling.seed + first
        seeded = sampling.model_copy(update={"seed": seed})
        for number, one in enumerate([seeded] if several else singles(seeded)):
            yield first + number, one
        first += sampling.n


def singles(sampling: Sampling, start: int = 0) -> Iterator[Sampling]:
    """The sampling as calls for one answer each, from the `start`-th on."""
    for number in range(start, sampling.n):
        seed = None if sampling.seed is None else sampling.seed + number
        yield sampling.model_copy(update={"n": 1, "seed": seed})

"""Panels in a YAML file: who is asked under which name, what answers are picked by, and how long it may take.

    presets:
      panel:
        models:
          - openai/gpt-5-mini
          - model: hosted_vllm/qwen3
            api_base: http://127.0.0.1:8000/v1
            api_key_env: VLLM_KEY
        samples: 2
        deadline_s: 20

Paths are relative to the file. It holds no keys, only the names of the environment variables that do. A text
`os.environ/NAME` stands for the content of that variable when the file is read, as in LiteLLM's own files.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cappy_select.ask.parameters import FIXED
from cappy_select.ask.providers import LiteLLMProvider, OpenAIProvider, Provider, ReplayProvider, TransformersProvider
from cappy_select.ask.sampling import Plan
from cappy_select.core.errors import CappyError, InputError
from cappy_select.core.yaml_files import AliasLoader, read_yaml
from cappy_select.scorer import OtherScorer, Scorer
from cappy_select.select.config import SelectorConfig
from cappy_select.select.selector import Selector
from cappy_select.select.strategies import Strategy, strategy_named


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, strict=True)


class PanelModel(_Strict):
    """One model of a panel; a name alone is short for `{model: NAME}`.

    Attributes:
        model: Its name, as `ask.providers.as_providers` takes it.
        api_base: The address of its server; default the vendor's own.
        api_key_env: The environment variable that holds the key; default the vendor's own.
        input_cost_per_token: Dollars; default LiteLLM's price, for a model that LiteLLM asks.
        output_cost_per_token: Dollars; default LiteLLM's price, for a model that LiteLLM asks.
        supports: Sampling parameters beyond those known.
        params: Passed with every call to it.
    """

    model: str = Field(min_length=1)
    api_base: str | None = None
    api_key_env: str | None = Field(None, description="the environment variable that holds the key")
    input_cost_per_token: float | None = Field(None, ge=0, description="dollars")
    output_cost_per_token: float | None = Field(None, ge=0, description="dollars")
    supports: list[str] = Field(default_factory=list, description="sampling parameters beyond those known")
    params: dict[str, Any] = Field(default_factory=dict)

    def provider(self, folder: Path, litellm_params: Mapping[str, Any]) -> Provider:
        """Who answers.

        Args:
            folder: What paths are relative to.
            litellm_params: Go to a model that LiteLLM asks, unless it has its own in `params`.

        Returns:
            The provider.

        Raises:
            InputError: the name means nothing, a key is not there, or a parameter or setting is none for such a model.
        """
        _refuse(self.params, FIXED | type(self).model_fields.keys())
        kind, _, name = self.model.partition(":")
        if kind == "replay":
            self._refuse_settings(but=())
            file, _, recorded = name.partition("#")
            return ReplayProvider(folder / file, recorded or None)
        if kind == "transformers":
            self._refuse_settings(but=("params",))
            return TransformersProvider(folder / name if (folder / name).exists() else name, params=self.params)
        settings: dict[str, Any] = self.model_dump(exclude={"model", "api_key_env", "params"})
        if self.api_key_env is not None:
            settings["api_key"] = _key(self.api_key_env)
        if kind == "openai":
            return OpenAIProvider(name, **settings, params=self.params)
        return LiteLLMProvider(self.model, **settings, params={**litellm_params, **self.params})

    def _refuse_settings(self, but: tuple[str, ...]) -> None:
        if given := sorted(self.model_fields_set - {"model", *but}):
            raise InputError(f"{', '.join(given)}: not for {self.model}, which is on this machine")


def _named(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class Panel(SelectorConfig):
    """What is asked under one name. The keys are `Selector`'s arguments; what is left out is as there.

    Attributes:
        models: Who is asked; at least one.
        samples: Answers to ask of each; instead of a plan.
        plan: A name, a JSON file, or the plan itself.
        scorer: A bundle's folder, or `hf://org/name`; default the embedded one.
        strategy: Its name, as `strategy_named` takes it.
        extract: What votes compare, by name.
        per_dollar: The price of `quality_cost`.
        params: Passed with every call to every model.
        allowed_params: What clients may set beyond OpenAI's own.
    """

    model_config = ConfigDict(strict=True)

    models: list[Annotated[PanelModel, BeforeValidator(_named)]] = Field(min_length=1)
    samples: int | None = None
    plan: str | dict[str, Any] | None = Field(None, description="a name, a JSON file, or the plan itself")
    scorer: str | None = Field(None, description="a bundle's folder, or hf://org/name")
    strategy: str = "argmax"
    extract: str | None = Field(None, description="what votes compare")
    per_dollar: float | None = Field(None, description="the price of `quality_cost`")
    params: dict[str, Any] = Field(default_factory=dict)
    allowed_params: list[str] = Field(default_factory=list, description="what clients may set beyond OpenAI's own")

    def selector(
        self,
        folder: Path,
        scorers: dict[str | None, Scorer | OtherScorer],
        litellm_params: Mapping[str, Any] | None = None,
    ) -> Selector:
        """The Selector.

        Args:
            folder: What paths are relative to.
            scorers: Those loaded before, by their source: panels share them. A new one is added.
            litellm_params: Of every call that LiteLLM makes, unless a model has its own.

        Returns:
            The Selector, ready to ask.

        Raises:
            InputError: a model, the plan, the strategy or a parameter can't be; says which.
            BundleError: the scorer can't be loaded.
        """
        _refuse(self.params, FIXED | inspect.signature(Selector).parameters.keys())
        source = self.scorer if self.scorer is None or self.scorer.startswith("hf://") else str(folder / self.scorer)
        own = {"models", "plan", "scorer", "strategy", "extract", "per_dollar", "params"}
        selector = Selector(
            self._providers(folder, litellm_params or {}),
            plan=self._plan(folder),
            strategy=self._strategy(),
            scorer=scorers[source] if source in scorers else Scorer.load(source),
            params=self.params,
            **self.model_dump(exclude=own, exclude_none=True),
        )
        scorers[source] = selector.scorer
        return selector

    def _providers(self, folder: Path, litellm_params: Mapping[str, Any]) -> list[Provider]:
        providers = []
        for place, model in enumerate(self.models):
            try:
                providers.append(model.provider(folder, litellm_params))
            except CappyError as error:
                raise InputError(f"models.{place}: {error}") from error
        return providers

    def _plan(self, folder: Path) -> Plan | None:
        if isinstance(self.plan, str) and (folder / self.plan).is_file():
            return Plan.load(folder / self.plan)
        if isinstance(self.plan, str):
            return Plan.preset(self.plan)
        return None if self.plan is None else Plan.load(self.plan)

    def _strategy(self) -> Strategy:
        given = {"extract": self.extract, "per_dollar": self.per_dollar}
        settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        strategy = strategy_named(self.strategy, **settings)
        for name in settings:
            if self.strategy not in _TAKEN_BY[name]:
                raise InputError(f"{name} is for {' and '.join(_TAKEN_BY[name])}, the strategy is {self.strategy}")
        return strategy


_TAKEN_BY = {"extract": ("vote", "weighted_vote"), "per_dollar": ("quality_cost",)}


class _File(_Strict):
    presets: dict[str, Panel] = Field(min_length=1)


def load_panels(path: str | Path, *, litellm_params: Mapping[str, Any] | None = None) -> dict[str, Selector]:
    """The selectors of a file of panels, by name.

    Args:
        path: A YAML file as described above; paths in it are relative to it.
        litellm_params: Parameters of every call that LiteLLM makes, unless a model of the file has its own.

    Returns:
        The selectors, by the names of their panels. Panels with the same scorer share it.

    Raises:
        InputError: the file can't be read, a key or a value means nothing, an environment variable is not set, or a
            scorer can't be loaded; names the file and the place.
    """
    try:
        content = read_yaml(path, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: {error.problem}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path} can't be read: {error}") from error
    try:
        panels = _File.model_validate(_resolved(content, path)).presets
    except ValidationError as error:
        raise InputError(f"{path}: {_fault(error)}") from None
    except RecursionError:
        raise InputError(f"{path}: an alias stands for something that it is in itself") from None
    selectors: dict[str, Selector] = {}
    scorers: dict[str | None, Scorer | OtherScorer] = {}
    for name, panel in panels.items():
        try:
            selectors[name] = panel.selector(Path(path).parent, scorers, litellm_params)
        except CappyError as error:
            raise InputError(f"{path}: presets.{name}: {error}") from error
    return selectors


_ENVIRONMENT = "os.environ/"
_NAMES_OF_KEYS = {"api_key", "api_key_env"}  # a key does not come that way: it would be shown where it is no name


def _resolved(value: Any, path: str | Path, *place: str) -> Any:
    """The content with the environment's variables in their places. Raises InputError for one that is not set."""
    if isinstance(value, dict):
        return {
            key: inner if key in _NAMES_OF_KEYS else _resolved(inner, path, *place, str(key))
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_resolved(inner, path, *place, str(number)) for number, inner in enumerate(value)]
    if not isinstance(value, str) or not value.startswith(_ENVIRONMENT):
        return value
    variable = value.removeprefix(_ENVIRONMENT)
    if not (found := os.environ.get(variable)):
        raise InputError(f"{path}: {'.'.join(place)}: the environment variable {variable} is not set")
    return found


class _Loader(AliasLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _fault(error: ValidationError) -> str:
    """The first fault and its place, and the value unless it may hold a secret."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")  # a typo leaves one missing
    first = faults[0]
    place, value = ".".join(map(str, first["loc"])), first["input"]
    if first["type"] == "extra_forbidden":
        if place.endswith(".api_key"):
            return f"{place}: a key does not stand in the file: api_key_env names the environment variable that has it"
        kinds: dict[int, type[BaseModel]] = {1: _File, 3: Panel}
        known = kinds.get(len(first["loc"]), PanelModel)  # presets.NAME.KEY, presets.NAME.models.0.KEY
        names = sorted(known.model_fields, key=SelectorConfig.model_fields.__contains__)  # its own before the limits
        return f"{place}: there is no such key; there are {', '.join(names)}"
    if first["type"] == "missing":
        return f"{place} is missing"
    got = repr(value) if isinstance(value, bool | int | float) else type(value).__name__
    expected = "must be a mapping" if first["type"] == "model_type" else first["msg"]
    if first["type"] == "float_type" and isinstance(value, str) and re.fullmatch(r"\d+e-?\d+", value):
        expected, got = f"write {value.replace('e', '.0e')}", "what YAML takes for text"
    return f"{place or 'the whole'}: {expected}, got {got}"


def _refuse(params: Mapping[str, Any], names: Collection[str]) -> None:
    if found := sorted(params.keys() & names):
        raise InputError(f"params go to the models as they are; {', '.join(found)} can't be among them")


def _key(variable: str) -> str:
    if not re.fullmatch("[A-Z][A-Z0-9_]*", variable):  # it may be a key, so it is not shown
        raise InputError("api_key_env must be the name of an environment variable, such as OPENAI_API_KEY")
    if not (key := os.environ.get(variable)):
        raise InputError(f"api_key_env: the environment variable {variable} is not set")
    return key

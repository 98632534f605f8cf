"""`CappySelector`: the best of what several runnables make of the same input, or of candidates from upstream."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue, StringPromptValue
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable
from langchain_core.runnables.config import patch_config, set_config_context
from langchain_core.runnables.utils import ConfigurableFieldSpec, coro_with_context, get_unique_config_specs
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError

from cappy_select import (
    Candidate,
    InputError,
    NoCandidates,
    ProviderError,
    Selection,
    Selector,
    Usage,
)
from cappy_select.ask import (
    MAX_SAMPLES,
    check_fields,
)
from cappy_select.core import (
    Prompt,
    background,
    validation_message,
)
from cappy_select.select import limit
from langchain_cappy.copies import SharedByCopies
from langchain_cappy.entrants import Entrant, Given, Race, candidate_of, output_of
from langchain_cappy.errors import langchains_own
from langchain_cappy.messages import as_openai, summary
from langchain_cappy.threads import in_thread

_KEYS = ("instruction", "question", "input", "query", "messages")
_NOSTREAM = "nostream"  # langgraph's TAG_NOSTREAM: what runs under it is not in stream_mode="messages"
_SHARED = ("strategy", "gates", "min_usable", "deadline_s", "grace_s", "stop_when", "abstain_below")


class CappySelector(SharedByCopies, RunnableSerializable[Any, Any]):
    """A runnable that gives the same input to other runnables, at the same time, and returns the best output.

    Example:
        >>> from langchain_cappy import CappySelector
        >>> race = CappySelector.from_runnables([chain_a, chain_b], samples=2)  # doctest: +SKIP
        >>> race.invoke({"question": "Name three rivers in Peru."})  # doctest: +SKIP

    Without runnables it takes candidates from upstream and returns the best of them:

        >>> CappySelector().invoke({"instruction": "Name a river.", "candidates": ["The Nile", "No"]})  # doctest: +SKIP

    The output is returned as it is, whatever its type. What is scored, and what gates and strategies read: a str
    itself, a message by its text and tool calls, a Document by its text, anything else as JSON.

    A runnable that fails is a failure of its own; too few usable outputs raise `cappy_select.NoCandidates`, which names
    every failure. A runnable's retries are its own (`with_retry`). `invoke` calls the runnables' `invoke`, each in a
    thread: one that is not waited for any more (deadline, grace) runs on there to its end. `ainvoke` calls `ainvoke`
    and cancels them.

    Callbacks see the runnables' runs as children of this one, tagged `nostream`: langgraph's `stream_mode="messages"`
    shows none of their tokens, and `astream_events(exclude_tags=["nostream"])` none of their events.

    LangChain's cache has one entry a prompt. So that it does not make one answer of several samples, every sample but
    the first is cached under a key of its own. Models that a function calls are out of reach: give those `cache=False`.

    Args:
        runnables: By the names that candidates and failures have; none: candidates come from upstream.
        samples: Calls of each runnable.
        scorer: What a `Selector` takes: a `Scorer`, what `Scorer.load` takes, a function of pairs; None for the
            embedded one.
        instruction: What the scorer reads as the instruction: a key of the input, or a function of the input that
            returns a str or messages. None: the input itself if it is a str, messages or a prompt, else its first key
            of `instruction`, `question`, `input`, `query`, `messages`, else its only value.
        strategy: How the winner is found: a `cappy_select.Strategy`; default `Argmax()`.
        gates: What an output must be to be scored: `cappy_select` gates, or functions of a candidate.
        min_usable: Outputs needed that can win.
        deadline_s: Seconds for all calls of one selection together.
        grace_s: Seconds that the other calls have once `min_usable` outputs arrived; None: to the deadline.
        stop_when: A score that is good enough not to wait for the other calls.
        abstain_below: A score that the winner must have: else `cappy_select.NoGoodAnswer` is raised.
        include_scores: Return `{"output", "score", "tokens_cut", "candidates": [{"output", "score", "model",
            "rejected"}], "failures"}`, best first, instead of the bare output.

    Raises:
        InputError: a field can't be.
        UnknownArgument: there is no such field.
        BundleError: the scorer can't be loaded.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    runnables: dict[str, Runnable[Any, Any]] = Field(default_factory=dict)
    samples: int = Field(1, ge=1)
    scorer: Any = None
    instruction: Any = None
    strategy: Any = None
    gates: tuple[Any, ...] = ()
    min_usable: int = limit("min_usable")
    deadline_s: float = limit("deadline_s")
    grace_s: float | None = limit("grace_s")
    stop_when: float | None = limit("stop_when")
    abstain_below: float | None = limit("abstain_below")
    include_scores: bool = False

    _built: tuple[list[Any], Selector] = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        """The fields by name; see the class.

        Args:
            fields: As the class lists them.

        Raises:
            InputError: a field can't be.
            UnknownArgument: there is no such field.
            BundleError: the scorer can't be loaded.
        """
        check_fields(type(self).__name__, fields, type(self).model_fields)
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(validation_message(error)) from error

    @classmethod
    def from_runnables(
        cls, runnables: Sequence[RunnableLike[Any, Any]] | Mapping[str, RunnableLike[Any, Any]], **options: Any
    ) -> CappySelector:
        """A race between runnables.

        Args:
            runnables: Runnables, or what LangChain makes one of (a function, a dict of runnables); by name, or named as
                they call themselves, with a number where two are alike.
            **options: The other fields.

        Returns:
            The race, ready to be invoked.

        Raises:
            InputError: there is no runnable, one is none, or an option can't be.
        """
        named = isinstance(runnables, Mapping)
        if not (named or isinstance(runnables, list | tuple)) or not runnables:
            raise InputError(f"runnables must be a non-empty list, or a dict by name, got {runnables!r:.80}")
        given = list(runnables.values() if isinstance(runnables, Mapping) else runnables)
        try:
            made: list[Runnable[Any, Any]] = [coerce_to_runnable(runnable) for runnable in given]
        except TypeError as error:
            raise InputError(f"a runnable, a function or a dict of them was expected: {error}") from error
        names = list(runnables) if isinstance(runnables, Mapping) else _names(made)
        return cls(runnables=dict(zip(names, made, strict=True)), **options)

    def model_post_init(self, context: Any, /) -> None:
        """Load the scorer and check the options once, here and not in the first request.

        Args:
            context: Pydantic's.

        Raises:
            InputError: an option can't be.
        """
        super().model_post_init(context)
        if not self.runnables and self.samples != 1:
            raise InputError(f"samples={self.samples} is for runnables, and there are none")
        if not (self.instruction is None or isinstance(self.instruction, str) or callable(self.instruction)):
            raise InputError(f"instruction must be a key or a function of the input, got {self.instruction!r:.80}")
        if inspect.iscoroutinefunction(self.instruction):
            raise InputError(f"instruction must be an ordinary function, {self.instruction.__name__} is async")
        self._built = self._setup, self._select_with(self.scorer)

    @property
    def _setup(self) -> list[Any]:
        return [getattr(self, name) for name in ("runnables", "samples", "scorer", *_SHARED)]

    @property
    def _selector(self) -> Selector:
        """The selector of the fields as they are now: `model_copy(update=...)` and assignment count."""
        setup, selector = self._built
        if any(old is not new for old, new in zip(setup, self._setup, strict=True)):
            selector = self._select_with(selector.scorer if setup[2] is self.scorer else self.scorer)
            self._built = self._setup, selector
        return selector

    def _select_with(self, scorer: Any) -> Selector:
        entrants = [Entrant(name, runnable) for name, runnable in self.runnables.items()]
        samples = self.samples if entrants else self.min_usable
        return Selector(entrants or [Given([])], samples=samples, scorer=scorer, max_retries=0, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SHARED}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Whether `langchain_core.load.dumps` writes its configuration: it does, as far as its parts can be written.

        Returns:
            True.
        """
        return True

    @property
    def InputType(self) -> Any:
        """That of the first runnable."""
        return next((runnable.InputType for runnable in self.runnables.values()), Any)

    @property
    def OutputType(self) -> Any:
        """Anything: the runnables may differ."""
        return Any

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """That of the first runnable; without runnables LangChain's own.

        Args:
            config: As for any runnable.

        Returns:
            A pydantic model.
        """
        first = next(iter(self.runnables.values()), None)
        return super().get_input_schema(config) if first is None else first.get_input_schema(config)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What of the runnables can be configured."""
        return get_unique_config_specs(spec for runnable in self.runnables.values() for spec in runnable.config_specs)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """The best output.

        Args:
            input: What every runnable gets; without runnables `{"instruction": ..., "candidates": [...]}`.
            config: As for any runnable; `max_concurrency` bounds the calls at a time.
            **kwargs: Passed to every runnable.

        Returns:
            The winner's output as it is, or with `include_scores` a dict that has all outputs.

        Raises:
            InputError: no instruction can be made of the input; no runnable was called.
            NoCandidates: too few usable outputs; names every failure.
            NoGoodAnswer: the winner's score is below `abstain_below`.
            StrategyError: the strategy failed.
        """
        return self._call_with_config(self._invoke, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """`invoke` for async callers.

        Args:
            input, config, kwargs: As in `invoke`.

        Returns:
            As `invoke`.

        Raises:
            CappyError: as `invoke`.
        """
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def _invoke(
        self, given: Any, run_manager: CallbackManagerForChainRun, config: RunnableConfig, **kwargs: Any
    ) -> Any:
        context = copy_context()

        async def call(runnable: Runnable[Any, Any], tag: str) -> Any:
            own = _quiet(config, run_manager.get_child(tag))

            def run() -> Any:
                with set_config_context(own) as inner:
                    return inner.run(runnable.invoke, given, own, **kwargs)

            return await in_thread(lambda: context.copy().run(run))

        selector, prompt, race = self._prepared(given, call, config)
        with race, langchains_own():
            selection = background.run(race.run(selector, prompt))
        return self._returned(selection)

    async def _ainvoke(
        self, given: Any, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig, **kwargs: Any
    ) -> Any:
        async def call(runnable: Runnable[Any, Any], tag: str) -> Any:
            own = _quiet(config, run_manager.get_child(tag))
            with set_config_context(own) as context:
                return await coro_with_context(runnable.ainvoke(given, own, **kwargs), context)

        selector, prompt, race = self._prepared(given, call, config)
        with race, langchains_own():
            selection = await race.run(selector, prompt)
        return self._returned(selection)

    def _prepared(self, given: Any, call: Any, config: RunnableConfig) -> tuple[Selector, Prompt, Race]:
        """Who is asked, for what, and how: all that can be wrong with the input is found here."""
        race = Race(call, config.get("max_concurrency"))
        if self.runnables:
            return self._selector, self._prompt(given), race
        candidates = _candidates(given)
        prompt = self._prompt(given)
        if len(candidates) < self.min_usable:
            message = f"{len(candidates)} candidates came from upstream, {self.min_usable} needed"
            reason = ProviderError(message, kind="invalid_response", model="upstream")
            raise NoCandidates(message, [reason], usage=Usage(), cost=0.0)
        scorer = self._selector.scorer
        return Selector([Given(candidates)], samples=len(candidates), scorer=scorer, **self._options), prompt, race

    def _prompt(self, given: Any) -> Prompt:
        """What the scorer's instruction is made of."""
        if callable(self.instruction):
            name = getattr(self.instruction, "__qualname__", type(self.instruction).__qualname__)
            try:
                found, source = self.instruction(given), f"the instruction function {name} returned"
            except Exception as error:
                raise InputError(f"the instruction function {name} failed: {type(error).__name__}: {error}") from error
        elif self.instruction is not None:
            if not isinstance(given, Mapping) or self.instruction not in given:
                raise InputError(f"the input must have the key {self.instruction!r} (instruction=), got {_what(given)}")
            found, source = given[self.instruction], f"the input's {self.instruction!r} is"
        elif isinstance(given, Mapping):
            keys = [key for key in given if self.runnables or key != "candidates"]
            key = next((key for key in _KEYS if key in keys), keys[0] if len(keys) == 1 else None)
            if key is None:
                raise InputError(
                    f"no instruction for the scorer can be told from {_what(given)}: one of the keys "
                    f"{', '.join(_KEYS)}, or a single one, was expected; else set instruction to a key or a function"
                )
            found, source = given[key], f"the input's {key!r} is"
        else:
            found, source = given, "the input is"
        return _as_prompt(found, source)

    def _returned(self, selection: Selection) -> Any:
        if not self.include_scores:
            return output_of(selection.best)
        said = summary(selection)
        return {
            "output": output_of(selection.best),
            "score": selection.best.score,
            "tokens_cut": said["tokens_cut"],
            "candidates": [
                {"output": output_of(candidate), **row}
                for candidate, row in zip(selection.candidates, said["candidates"], strict=True)
            ],
            "failures": said["failures"],
        }


def _names(runnables: Sequence[Runnable[Any, Any]]) -> list[str]:
    """As they call themselves, numbered where that is not enough."""
    names = [runnable.get_name() for runnable in runnables]
    many, seen = Counter(names), Counter[str]()
    for place, name in enumerate(names):
        if many[name] > 1:
            seen[name] += 1
            names[place] = f"{name} {seen[name]}"
    return names


def _quiet(config: RunnableConfig, callbacks: Any) -> RunnableConfig:
    """The config of a child run, whose tokens are not for langgraph's stream."""
    own = patch_config(config, callbacks=callbacks)
    own["tags"] = [*own.get("tags", ()), _NOSTREAM]
    return own


def _candidates(given: Any) -> list[Candidate]:
    """What came from upstream. Raises InputError when that is not candidates."""
    if not isinstance(given, Mapping) or "candidates" not in given:
        raise InputError(
            f"without runnables the input must be {{'instruction': ..., 'candidates': [...]}}, got {_what(given)}"
        )
    several = given["candidates"]
    if not isinstance(several, list | tuple | Mapping):
        raise InputError(f"the input's 'candidates' must be a list, or a dict by name, got {_what(several)}")
    if len(several) > MAX_SAMPLES:
        raise InputError(f"{len(several)} candidates are too many, at most {MAX_SAMPLES} are compared")
    named = several.items() if isinstance(several, Mapping) else enumerate(several, 1)
    found = []
    for name, output in named:
        model = name if isinstance(name, str) else f"candidate {name}"
        if isinstance(output, BaseMessage) and not isinstance(several, Mapping):
            model = output.response_metadata.get("model_name") or model
        found.append(candidate_of(output, model=model))
    return found


def _as_prompt(found: Any, source: str) -> Prompt:
    """A str, or messages as the scorer's policies read them. Raises InputError."""
    value = found
    if isinstance(value, StringPromptValue):
        value = value.text
    if isinstance(value, str):
        return value
    if isinstance(value, PromptValue):
        value = value.to_messages()
    if isinstance(value, BaseMessage):
        value = [value]
    if isinstance(value, list | tuple) and value:
        try:
            return as_openai(convert_to_messages(value))
        except Exception as error:
            raise InputError(f"{source} a list that can't be read as messages: {error}") from error
    raise InputError(f"{source} {_what(found)}, where a str, messages or a prompt value was expected")


def _what(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with the keys {', '.join(map(str, value)) or '(none)'}"
    return f"{type(value).__name__} {value!r:.80}"

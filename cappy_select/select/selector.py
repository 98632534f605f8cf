"""`Selector`: ask, score, choose. The one place where the online line is joined up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from pydantic import ValidationError

from cappy_select.ask.complete import Complete
from cappy_select.ask.fan_out import fan_out, no_candidates
from cappy_select.ask.in_context import InContext
from cappy_select.ask.parameters import CallParameters, callers, check_allowed, given, owned
from cappy_select.ask.providers import Capabilities, Provider, as_providers
from cappy_select.ask.requests import RequestPlanner, as_plan
from cappy_select.ask.sampling import Plan
from cappy_select.ask.streaming import Emit, passed_on, pieces_of
from cappy_select.core import background
from cappy_select.core.closing import Closable
from cappy_select.core.copies import made_again
from cappy_select.core.errors import InputError, NoGoodAnswer, StrategyError, validation_message
from cappy_select.core.time_limit import OutOfTime
from cappy_select.core.types import (
    Candidate,
    Delta,
    Instruction,
    InstructionPolicy,
    Prompt,
    Request,
    Selection,
)
from cappy_select.scorer import PairScorer, Scorer, as_scorer
from cappy_select.select.config import SelectorConfig
from cappy_select.select.gates import AS_ASKED, Gate, as_gates
from cappy_select.select.observers import Finished, Observer, Told
from cappy_select.select.scoring import AnswerScoring, ScorerFailed
from cappy_select.select.screening import screened
from cappy_select.select.strategies import Argmax, Needing, Strategy
from cappy_select.text.instruction import as_messages, check_policy
from cappy_select.text.messages import response_text

_T = TypeVar("_T")

_TELLING_S = 5.0  # for observers, when a Selector is closed
_LEAST_ORDERING_S = 1.0  # for a strategy when the answers came at the last moment


@made_again
class Selector(Closable):
    """Asks models for several answers and returns the best, scored on this machine.

    Safe to share between threads and event loops. What it learns of a provider that is down (cool-down) and
    how many calls run at a time is shared by all its callers. A copy is the same Selector; a pickle holds what it
    was made with, a key only if one was given, and loads the scorer anew.

    `close`, `aclose` or `with` close the connections of the models that were given by name, and wait a few seconds
    until the observers were told of everything. Providers that were given are their maker's to close.

    Args:
        models: Names or providers. A name is LiteLLM's (`anthropic/claude-haiku-4-5`), `openai:MODEL`
            (OpenAI's own client), `transformers:PATH` (a local model) or `replay:FILE[#MODEL]`.
        samples: Answers to ask of each model; default 4. Short for a plan.
        plan: What to ask of each model: a `Plan`, `single`, `quick`, `paper`, or a JSON file.
        scorer: A `Scorer`, or what `Scorer.load` takes; a function of (instruction, response) pairs that gives a
            number for each, or an object with such a `score_pairs`; None for the embedded default.
        instruction: How the scorer's instruction is made of the prompt (`paper`, `chat`, `last_user`,
            or a callable); None for `paper` on a str and `chat` on messages.
        examples: In-context examples that the models see before the prompt.
        gates: What an answer must be to be scored (`JsonSchema`, `Matches`, ..., or a function of a
            candidate), after `Complete`, which every answer must pass; one to a request with `tools` or a
            `response_format` must also fit those.
        accept_cut_off: Answers that a limit cut off can win; None: as the plan says.
        strategy: How the winner is found; default `Argmax()`.
        observers: Functions that are told of every selection when it has ended (`Finished`): a ledger, metrics.
            Each runs in a thread of its own, and can neither slow a selection nor make it fail.
        stop_when: A score that is good enough: when one answer has it, and `min_usable` are there, the other
            calls are cancelled.
        abstain_below: A score that the winner must have: else `NoGoodAnswer` is raised.
        deadline_s: Seconds for all calls of one selection together, gates included. A strategy has what is left
            of them, at least 1; an instruction policy has as many.
        grace_s: Seconds that the other calls have once `min_usable` answers arrived; None: to the deadline.
        min_usable: Answers needed that can win; with fewer, `NoCandidates` is raised.
        max_cost: Dollars that one selection may cost. A call that could pass it, a token a byte, is not
            made. With `max_tokens` here or in the plan the limit is firm, images apart (docs/selecting.md);
            without, what the calls under way write comes on top.
        max_candidates: Answers that one selection may ask for.
        max_retries: Of one call, on rate limits, timeouts and server errors.
        max_concurrency: Calls to one provider at a time, over all selections.
        cool_down_after, cool_down_s: After so many failed calls in a row a provider is left alone for so
            long, while there are others to ask.
        api_key, api_base: For the models given by name.
        params: Call parameters, passed with every call. What belongs to a client library and not to the models
            (LiteLLM's `drop_params`, ...) is given to a provider.
        allowed_params: What callers may set by `params` of `select` and its like beyond OpenAI's own parameters
            and those of a `Sampling`. None: whatever no client library acts upon itself; it goes into the body
            of the request.
        **known: OpenAI's call parameters and those of a `Sampling` by name (temperature, max_tokens, ...).

    Raises:
        UnknownArgument: an argument that there is not (a TypeError).
        InputError: an argument is out of range, two contradict each other, a model's name means nothing,
            or a provider can't honour the plan.
        BundleError: the scorer can't be loaded.
    """

    def __init__(
        self,
        models: Sequence[str | Provider],
        *,
        samples: int | None = None,
        plan: Plan | Mapping[str, Any] | str | Path | None = None,
        scorer: Scorer | PairScorer | Callable[[Sequence[tuple[str, str]]], Any] | str | Path | None = None,
        instruction: InstructionPolicy | None = None,
        examples: InContext | None = None,
        gates: Iterable[Gate | Callable[[Candidate], object]] = (),
        accept_cut_off: bool | None = None,
        strategy: Strategy | None = None,
        observers: Iterable[Observer] = (),
        stop_when: float | None = None,
        abstain_below: float | None = None,
        deadline_s: float = 60.0,
        grace_s: float | None = None,
        min_usable: int = 1,
        max_cost: float | None = None,
        max_candidates: int = 1000,
        max_retries: int = 2,
        max_concurrency: int = 100,
        cool_down_after: int = 5,
        cool_down_s: float = 30.0,
        api_key: str | None = None,
        api_base: str | None = None,
        params: Mapping[str, Any] | None = None,
        allowed_params: Collection[str] | None = None,
        **known: Unpack[CallParameters],
    ) -> None:
        try:
            self.config = SelectorConfig(
                accept_cut_off=accept_cut_off,
                stop_when=stop_when,
                abstain_below=abstain_below,
                deadline_s=deadline_s,
                grace_s=grace_s,
                min_usable=min_usable,
                max_cost=max_cost,
                max_candidates=max_candidates,
                max_retries=max_retries,
                max_concurrency=max_concurrency,
                cool_down_after=cool_down_after,
                cool_down_s=cool_down_s,
            )
        except ValidationError as error:
            raise InputError(validation_message(error)) from error
        everyone = owned(given(Selector.__init__, params, known, name="Selector"), Selector.__init__)
        self._allowed = check_allowed(allowed_params)
        check_policy(instruction)
        asked = as_plan(samples, plan)
        cut_off = asked.accept_cut_off if accept_cut_off is None else accept_cut_off
        self._gates = (Complete(accept_cut_off=cut_off), *as_gates(gates))
        self._strategy: Strategy = Argmax() if strategy is None else strategy
        if not isinstance(self._strategy, Strategy) or isinstance(self._strategy, type):
            raise InputError(f"a strategy is an object with `name` and `order`, such as Argmax(), got {strategy!r}")
        self._params = everyone
        needs = self._strategy.needs if isinstance(self._strategy, Needing) else frozenset()
        told = list(observers)
        if not all(map(callable, told)):
            raise InputError(f"observers are functions of a Finished selection, got {told!r:.200}")
        providers = as_providers(models, api_key=api_key, api_base=api_base)
        self._planner = RequestPlanner(
            providers, asked, examples, self.config, logprobs="logprobs" in needs, params=everyone
        )
        if "cost" in needs:
            for provider in providers:
                self._planner.need_price(provider, self._strategy.name)
        self.scorer = as_scorer(scorer)
        self._scoring = AnswerScoring(self.scorer, instruction, self.config.deadline_s)
        ours = [provider for given, provider in zip(models, providers, strict=True) if isinstance(given, str)]
        self._held = _Held(ours, [Told(observer) for observer in told])

    _form: tuple[Gate, ...] = AS_ASKED

    def _with_form(self, form: Gate) -> Self:
        """This selector, with another gate for what a request's tools and format ask for: a face for a framework reads
        answers as the framework does."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._form = (form,)
        return twin

    @property
    def plan(self) -> Plan:
        """What is asked of each model."""
        return self._planner.plan

    def select(
        self, prompt: Prompt, params: Mapping[str, Any] | None = None, **known: Unpack[CallParameters]
    ) -> Selection:
        """The best answer to a prompt or to OpenAI-style messages.

        Works inside a running event loop too (it blocks it: use `aselect` there when others need it).

        Args:
            prompt: A plain prompt, or messages.
            params: Call parameters, passed with every call; they win over the constructor's. What the models' client
                libraries act upon themselves (addresses, keys, prices, LiteLLM's `fallbacks`) is not taken.
            **known: OpenAI's call parameters and those of a `Sampling` by name (tools, temperature, stop, ...).

        Returns:
            The winner, all other candidates and failures, and what it all cost.

        Raises:
            UnknownArgument: an argument that there is not (a TypeError).
            NoCandidates: too few usable answers arrived; names every failure, carries usage and cost.
            NoGoodAnswer: the winner's score is below `abstain_below`; carries the Selection.
            StrategyError: the strategy failed, or had not ended when time was up; carries the Selection by score.
            InputError: the prompt can't be read, or a parameter contradicts the plan or is not the caller's to give.
        """
        return background.run(self._select(prompt, self._call("select", params, known)))

    async def aselect(
        self, prompt: Prompt, params: Mapping[str, Any] | None = None, **known: Unpack[CallParameters]
    ) -> Selection:
        """`select` for async callers.

        Args:
            prompt: As for `select`.
            params, **known: As for `select`.

        Returns:
            As `select` does.

        Raises:
            CappyError: as `select` does.
        """
        return await self._select(prompt, self._call("aselect", params, known))

    def stream(
        self, prompt: Prompt, params: Mapping[str, Any] | None = None, **known: Unpack[CallParameters]
    ) -> Iterator[Delta | Selection]:
        """The best answer in pieces, then the Selection.

        When one answer is asked for and nothing but its being one decides (no gates, no `abstain_below`), its
        pieces come as the model writes them; else those of the winner, once it is found.

        Args:
            prompt: As for `select`.
            params, **known: As for `select`.

        Returns:
            An iterator of the answer's pieces, and last of all the Selection.

        Raises:
            CappyError: as `select` does, while it is followed; after the pieces if the one answer turns out unusable.
        """
        call = self._call("stream", params, known)
        return background.iterate(lambda: self._stream(prompt, call))

    def astream(
        self, prompt: Prompt, params: Mapping[str, Any] | None = None, **known: Unpack[CallParameters]
    ) -> AsyncGenerator[Delta | Selection, None]:
        """`stream` for async callers.

        Args:
            prompt: As for `select`.
            params, **known: As for `select`.

        Returns:
            An async iterator of the answer's pieces, and last of all the Selection.

        Raises:
            CappyError: as `stream` does.
        """
        return self._stream(prompt, self._call("astream", params, known))

    async def _stream(self, prompt: Prompt, params: dict[str, Any]) -> AsyncGenerator[Delta | Selection, None]:
        coming: asyncio.Queue[Delta | None] = asyncio.Queue()
        selecting = asyncio.create_task(self._select(prompt, params, coming.put_nowait))
        selecting.add_done_callback(lambda _: coming.put_nowait(None))
        begun = False
        try:
            while (piece := await coming.get()) is not None:
                begun = True
                yield piece
            selection = await selecting
            if not begun:
                for piece in pieces_of(selection.best.message):
                    yield piece
            yield selection
        finally:
            selecting.cancel()
            await asyncio.gather(selecting, return_exceptions=True)

    async def aclose(self) -> None:
        """Close the connections that this Selector made, of this event loop and of synchronous calls."""
        await self._held.aclose()

    async def _select(self, prompt: Prompt, params: dict[str, Any], emit: Emit | None = None) -> Selection:
        """`_chosen`, and whoever observes is told."""
        self._held.check_open()
        if not self._held.told:
            return await self._chosen(prompt, params, emit)
        started, selection, error = time.perf_counter(), None, None
        try:
            selection = await self._chosen(prompt, params, emit)
            return selection
        except BaseException as raised:
            selection = getattr(raised, "selection", None)
            error = raised
            raise
        finally:
            finished = Finished(prompt, params, time.perf_counter() - started, selection, error)
            for told in self._held.told:
                told.tell(finished)

    async def _chosen(self, prompt: Prompt, params: dict[str, Any], emit: Emit | None = None) -> Selection:
        """Ask, score, choose; the pieces of an only answer are handed to `emit` as they come."""
        started = time.perf_counter()

        def left() -> float:  # seconds for what comes after the calls
            return max(_LEAST_ORDERING_S, self.config.deadline_s - (time.perf_counter() - started))

        messages = as_messages(prompt)
        everyone, allowed = self._params, {*(self._params.keys() - params.keys()), *(self._allowed or ())}
        asked = await background.work(lambda: self._planner.ask(messages, {**everyone, **params}, allowed=allowed))
        examples = self._planner.examples
        seen = asked.calls[0].request.messages if examples and examples.scorer_sees else prompt
        # Before the calls: a prompt or policy that can't be read must not be found out after they are paid for.
        instruction = await self._scoring.instruction(seen)
        freely = emit is not None and len(self._gates) == 1 and self.config.abstain_below is None
        gathered = await fan_out(
            passed_on(asked.calls, emit) if emit is not None and freely else asked.calls,
            self.config,
            screen=lambda answers, seconds: self._screened(answers, instruction, seconds),
            good_enough=self._is_good_enough,
        )
        instruction, candidates = await self._scoring.scored(seen, instruction, gathered.candidates, left())
        able = [candidate for candidate in candidates if candidate.rejected is None]
        if len(able) < self.config.min_usable:  # a score may be no number
            raise no_candidates(replace(gathered, candidates=tuple(candidates)), len(able), self.config.min_usable)
        unable = [candidate for candidate in candidates if candidate.rejected is not None]
        selection = Selection(
            candidates=(*Argmax().order(able), *unable),
            failures=gathered.failures,
            instruction=instruction,
            scorer=self.scorer.name,
            strategy=self._strategy.name,
            plan=self.plan.name,
            downgrades=asked.downgrades,
            examples=asked.examples,
            ended=gathered.ended,
            usage=gathered.usage,
            cost=gathered.cost,
            latency_s=time.perf_counter() - started,
        )
        ordered = await self._ordered(able, selection, left())
        latency_s = time.perf_counter() - started
        selection = selection.model_copy(update={"candidates": (*ordered, *unable), "latency_s": latency_s})
        score = selection.best.score
        if self.config.abstain_below is not None and (score is None or score < self.config.abstain_below):
            raise NoGoodAnswer(selection, self.config.abstain_below)
        return selection

    @overload
    def batch(
        self,
        prompts: Sequence[Prompt],
        *,
        max_concurrency: int = ...,
        return_exceptions: Literal[False] = ...,
        params: Mapping[str, Any] | None = ...,
        **known: Unpack[CallParameters],
    ) -> list[Selection]: ...
    @overload
    def batch(
        self,
        prompts: Sequence[Prompt],
        *,
        max_concurrency: int = ...,
        return_exceptions: bool,
        params: Mapping[str, Any] | None = ...,
        **known: Unpack[CallParameters],
    ) -> list[Selection | Exception]: ...
    def batch(
        self,
        prompts: Sequence[Prompt],
        *,
        max_concurrency: int = 8,
        return_exceptions: bool = False,
        params: Mapping[str, Any] | None = None,
        **known: Unpack[CallParameters],
    ) -> Sequence[Selection | Exception]:
        """`select` for several prompts at once.

        Args:
            prompts: Plain prompts or lists of messages.
            max_concurrency: Selections at a time, each of models × samples calls; how many calls to one provider go out
                at a time is said by the Selector's own `max_concurrency`.
            return_exceptions: Put a prompt's error in its place. False: the first error is raised and the
                selections under way are cancelled.
            params, **known: As for `select`.

        Returns:
            A Selection for each prompt, in order.

        Raises:
            CappyError: as `select` does.
            InputError: `prompts` is one str, or `max_concurrency` is less than 1.
        """
        call = self._call("batch", params, known)
        return background.run(self._batch(prompts, max_concurrency, return_exceptions, call))

    @overload
    async def abatch(
        self,
        prompts: Sequence[Prompt],
        *,
        max_concurrency: int = ...,
        return_exceptions: Literal[False] = ...,
        params: Mapping[str, Any] | None = ...,
        **known: Unpack[CallParameters],
    ) -> list[Selection]: ...
    @overload
    async def abatch(
        self,
        prompts: Sequence[Prompt],
        *,
        max_concurrency: int = ...,
        return_exceptions: bool,
        params: Mapping[str, Any] | None = ...,
        **known: Unpack[CallParameters],
    ) -> list[Selection | Exception]: ...
    async def abatch(
        self,
        prompts: Sequence[Prompt],
        *,
        max_concurrency: int = 8,
        return_exceptions: bool = False,
        params: Mapping[str, Any] | None = None,
        **known: Unpack[CallParameters],
    ) -> Sequence[Selection | Exception]:
        """`batch` for async callers.

        Args:
            prompts: As for `batch`.
            max_concurrency: Selections at a time, as for `batch`.
            return_exceptions: As for `batch`.
            params, **known: As for `select`.

        Returns:
            A Selection for each prompt, in order.

        Raises:
            CappyError: as `batch` does.
        """
        return await self._batch(prompts, max_concurrency, return_exceptions, self._call("abatch", params, known))

    async def _batch(
        self, prompts: Sequence[Prompt], max_concurrency: int, return_exceptions: bool, params: dict[str, Any]
    ) -> list[Selection | Exception]:
        if isinstance(prompts, str):
            raise InputError("prompts must be several prompts, got one str: put it in a list")
        if max_concurrency < 1:
            raise InputError(f"max_concurrency must be at least 1, got {max_concurrency}")
        slots = asyncio.Semaphore(max_concurrency)

        async def one(prompt: Prompt) -> Selection | Exception:
            async with slots:
                try:
                    return await self._select(prompt, params)
                except Exception as error:
                    if return_exceptions:
                        return error
                    raise

        tasks = [asyncio.create_task(one(prompt)) for prompt in prompts]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _call(self, name: str, params: Mapping[str, Any] | None, known: CallParameters) -> dict[str, Any]:
        """A caller's parameters."""
        asked = given(getattr(Selector, name), params, known, name=name, made_with=Selector.__init__)
        return callers(asked, self._allowed, Selector.__init__)

    async def _screened(
        self, answers: Sequence[tuple[Candidate, Request]], instruction: Instruction, seconds: float
    ) -> list[Candidate]:
        """Answers as they arrive: rejected by a gate, or not; scored already when a score can end the fan-out."""
        until = time.perf_counter() + seconds
        found = await screened(answers, self._gates, self._form, seconds)
        able = [place for place, candidate in enumerate(found) if candidate.rejected is None]
        if self.config.stop_when is None or not able:
            return found
        texts = [response_text(found[place].message) for place in able]
        try:
            async with asyncio.timeout(until - time.perf_counter()):
                scored = await self._scoring.scores(texts, instruction, seconds)
        except (TimeoutError, ScorerFailed):  # they are scored with the others, when all calls have ended
            return found
        for place, score in zip(able, scored.scores.tolist(), strict=True):
            found[place] = found[place].model_copy(update={"score": score})
        return found

    async def _ordered(self, able: Sequence[Candidate], selection: Selection, seconds: float) -> list[Candidate]:
        """By the strategy. It may be the user's own; if it fails, the answers must not be lost."""
        if type(self._strategy) is Argmax:
            return list(selection.candidates[: len(able)])
        name = self._strategy.name
        try:
            ordered = await background.users_work(lambda: list(self._strategy.order(able)), seconds)
            same = sorted(c.index for c in ordered) == sorted(c.index for c in able)
        except Exception as error:
            if isinstance(error, TimeoutError) and (isinstance(error, OutOfTime) or not str(error)):
                raise StrategyError(
                    f"the strategy {name!r} had not ended after {seconds:.3g} s, when time was up: the answers, by "
                    "score, are in this error's `selection`", selection
                ) from error  # fmt: skip
            raise StrategyError(f"the strategy {name!r} failed: {type(error).__name__}: {error}", selection) from error
        if not same:
            raise StrategyError(f"the strategy {name!r} must return the candidates it was given, in order", selection)
        return ordered

    def _is_good_enough(self, candidate: Candidate) -> bool:
        return (
            self.config.stop_when is not None
            and candidate.score is not None
            and candidate.score >= self.config.stop_when
        )


class _Held:
    """What a Selector made for itself and has to let go of."""

    def __init__(self, providers: Sequence[Provider], told: Sequence[Told]) -> None:
        self._providers, self.told = providers, told
        self._closed = False

    def check_open(self) -> None:
        """Raises RuntimeError when it was closed."""
        if self._closed:
            raise RuntimeError("this Selector is closed: make another one")

    async def aclose(self) -> None:
        self._closed = True
        for provider in self._providers:
            if (aclose := Capabilities.of(provider).aclose) is not None:
                await aclose()
        for told in self.told:
            await asyncio.to_thread(told.flush, _TELLING_S)

"""`Selector`: ask, score, choose. The one place where the online line is joined up."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from pydantic import ValidationError

from cappy_select import background
from cappy_select.errors import InputError, NoCandidates, ProviderError
from cappy_select.fanout import Call, FanOutConfig, Gathered, fan_out
from cappy_select.instruction import as_messages, build_instruction, check_policy
from cappy_select.providers import Provider, as_providers
from cappy_select.scorer import Scorer
from cappy_select.strategies import Argmax, Strategy
from cappy_select.types import Candidate, Instruction, InstructionPolicy, Prompt, Request, Selection, response_text

MAX_SAMPLES = 1000  # of one model; each is a paid call

FIXED = frozenset(
    {
        *("model", "messages", "n", "stream", "num_retries", "max_retries"),
        *("timeout", "timeout_s", "request_timeout", "api_key", "api_base", "base_url"),
    }
)
"""Call parameters that a Selector decides itself."""


class Selector:
    """Asks models for several answers and returns the best, scored on this machine.

    Safe to share between threads and event loops.
    """

    def __init__(
        self,
        models: Sequence[str | Provider],
        *,
        samples: int = 4,
        scorer: Scorer | str | Path | None = None,
        instruction: InstructionPolicy | None = None,
        strategy: Strategy | None = None,
        deadline_s: float = 60.0,
        min_usable: int = 1,
        max_retries: int = 2,
        api_key: str | None = None,
        api_base: str | None = None,
        **params: Any,
    ) -> None:
        """Set up the models and load the scorer.

        Args:
            models: LiteLLM model names (`openai/gpt-5-mini`), `replay:FILE[#MODEL]`, or providers.
            samples: Answers to ask of each model, one call each.
            scorer: A `Scorer`, or what `Scorer.load` takes; None for the embedded default.
            instruction: How the scorer's instruction is made of the prompt (`paper`, `chat`, `last_user`,
                or a callable); None for `paper` on a str and `chat` on messages.
            strategy: How the winner is found; default `Argmax()`.
            deadline_s: Seconds for all calls of one selection together.
            min_usable: Non-empty answers needed; with fewer, `NoCandidates` is raised.
            max_retries: Of one call, on rate limits, timeouts and server errors.
            api_key, api_base: For the models given by their LiteLLM name.
            **params: Passed with every call (temperature, max_tokens, ...).

        Raises:
            InputError: an argument is out of range, or a model's name means nothing.
            BundleError: the scorer can't be loaded.
        """
        if not isinstance(samples, int) or not 1 <= samples <= MAX_SAMPLES:
            raise InputError(f"samples must be a whole number from 1 to {MAX_SAMPLES}, got {samples!r}")
        try:
            self._config = FanOutConfig(deadline_s=deadline_s, min_usable=min_usable, max_retries=max_retries)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}") from error
        _refuse_fixed(params)
        check_policy(instruction)
        self._providers = as_providers(models, api_key=api_key, api_base=api_base)
        self._params = params
        if min_usable > samples * len(self._providers):
            raise InputError(
                f"min_usable={min_usable} can't be met by {len(self._providers)} models × {samples} samples"
            )
        self.samples = samples
        self.scorer = scorer if isinstance(scorer, Scorer) else Scorer.load(scorer)
        self._policy = instruction
        self._strategy: Strategy = Argmax() if strategy is None else strategy
        if not isinstance(self._strategy, Strategy):
            raise InputError(f"a strategy is an object with `name` and `order`, such as Argmax(), got {strategy!r}")

    def select(self, prompt: Prompt, **params: Any) -> Selection:
        """The best answer to a prompt or to OpenAI-style messages.

        Works inside a running event loop too (it blocks it: use `aselect` there when others need it).

        Args:
            prompt: A plain prompt, or messages.
            **params: Passed with every call (tools, temperature, stop, ...); wins over the constructor's.

        Raises:
            NoCandidates: too few usable answers arrived; names every failure, carries usage and cost.
            InputError: the prompt can't be read.
        """
        return background.run(self.aselect(prompt, **params))

    async def aselect(self, prompt: Prompt, **params: Any) -> Selection:
        """`select` for async callers."""
        started = time.perf_counter()
        _refuse_fixed(params)
        messages = as_messages(prompt)
        # Before the calls: a prompt or policy that can't be read must not be found out after they are paid for.
        instruction = await background.work(lambda: self._instruction(prompt, self.scorer.window))
        gathered = await fan_out(self._calls(messages, {**self._params, **params}), self._config)
        instruction, candidates = await self._score(prompt, instruction, gathered)
        able = [candidate for candidate in candidates if candidate.rejected is None]
        if not able:
            raise NoCandidates(
                "no answer has a score",
                [ProviderError(str(c.rejected), kind="invalid_response", model=c.model) for c in candidates],
                usage=gathered.usage,
                cost=gathered.cost,
            )
        unable = [candidate for candidate in candidates if candidate.rejected is not None]
        ordered = self._strategy.order(able)
        if sorted(c.index for c in ordered) != [c.index for c in able]:
            raise InputError(f"the strategy {self._strategy.name!r} must return the candidates it was given, in order")
        return Selection(
            candidates=(*ordered, *unable),
            failures=gathered.failures,
            instruction=instruction,
            scorer=str(self.scorer.bundle),
            strategy=self._strategy.name,
            usage=gathered.usage,
            cost=gathered.cost,
            latency_s=time.perf_counter() - started,
        )

    @overload
    def batch(
        self,
        prompts: Sequence[Prompt],
        *,
        max_concurrency: int = ...,
        return_exceptions: Literal[False] = ...,
        **params: Any,
    ) -> list[Selection]: ...
    @overload
    def batch(
        self, prompts: Sequence[Prompt], *, max_concurrency: int = ..., return_exceptions: bool, **params: Any
    ) -> list[Selection | Exception]: ...
    def batch(
        self,
        prompts: Sequence[Prompt],
        *,
        max_concurrency: int = 8,
        return_exceptions: bool = False,
        **params: Any,
    ) -> Sequence[Selection | Exception]:
        """`select` for several prompts at once; see `abatch`."""
        work: Coroutine[Any, Any, list[Selection | Exception]] = self.abatch(
            prompts, max_concurrency=max_concurrency, return_exceptions=return_exceptions, **params
        )
        return background.run(work)

    @overload
    async def abatch(
        self,
        prompts: Sequence[Prompt],
        *,
        max_concurrency: int = ...,
        return_exceptions: Literal[False] = ...,
        **params: Any,
    ) -> list[Selection]: ...
    @overload
    async def abatch(
        self, prompts: Sequence[Prompt], *, max_concurrency: int = ..., return_exceptions: bool, **params: Any
    ) -> list[Selection | Exception]: ...
    async def abatch(
        self,
        prompts: Sequence[Prompt],
        *,
        max_concurrency: int = 8,
        return_exceptions: bool = False,
        **params: Any,
    ) -> Sequence[Selection | Exception]:
        """A Selection for each prompt, in order.

        Args:
            prompts: Plain prompts or lists of messages.
            max_concurrency: Selections under way at a time; each makes models × samples calls.
            return_exceptions: Put a prompt's error in its place. False: the first error is raised and the
                selections under way are cancelled.
        """
        if isinstance(prompts, str):
            raise InputError("prompts must be several prompts, got one str: put it in a list")
        if max_concurrency < 1:
            raise InputError(f"max_concurrency must be at least 1, got {max_concurrency}")
        slots = asyncio.Semaphore(max_concurrency)

        async def one(prompt: Prompt) -> Selection | Exception:
            async with slots:
                try:
                    return await self.aselect(prompt, **params)
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

    def _calls(self, messages: tuple[dict[str, Any], ...], params: dict[str, Any]) -> list[Call]:
        return [
            Call(
                provider,
                Request(messages=messages, sample=sample, timeout_s=self._config.deadline_s, params=params),
            )
            for provider in self._providers
            for sample in range(self.samples)
        ]

    def _instruction(self, prompt: Prompt, budget: int) -> Instruction:
        return build_instruction(
            prompt,
            self._policy,
            count_tokens=self.scorer.count_tokens,
            budget=budget,
            paper_side=self.scorer.bundle.manifest.cut_side,
        )

    def _fitted(self, prompt: Prompt, responses: list[str]) -> Instruction:
        longest = max(self.scorer.count_tokens(response) for response in responses)
        window = self.scorer.window
        return self._instruction(prompt, max(window // 2, window - longest))

    async def _score(
        self, prompt: Prompt, instruction: Instruction, gathered: Gathered
    ) -> tuple[Instruction, list[Candidate]]:
        """Score the usable candidates, reject those without a finite score."""
        usable = [candidate for candidate in gathered.candidates if candidate.rejected is None]
        responses = [response_text(candidate.message) for candidate in usable]
        if instruction.policy == "chat":  # the turns it has room for depend on how long the answers are
            instruction = await background.work(lambda: self._fitted(prompt, responses))
        scored = await self.scorer.ascore_detailed(
            [(instruction.text, response) for response in responses], instruction_side=instruction.cut_side
        )
        by_index = {
            candidate.index: candidate.model_copy(
                update={"score": score, "tokens_cut": int(cut)}
                if math.isfinite(score)
                else {"tokens_cut": int(cut), "rejected": f"the score is {score}"}
            )
            for candidate, score, cut in zip(usable, scored.scores.tolist(), scored.response_cut, strict=True)
        }
        instruction = instruction.model_copy(update={"tokens_cut": int(scored.instruction_cut.max())})
        return instruction, [by_index.get(candidate.index, candidate) for candidate in gathered.candidates]


def _refuse_fixed(params: dict[str, Any]) -> None:
    if fixed := sorted(FIXED & params.keys()):
        raise InputError(f"{', '.join(fixed)} can't be a call parameter: set it when making the Selector or provider")

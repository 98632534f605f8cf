"""What the scorer reads of a prompt, and what it says of the answers to it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from cappy_select.core import background
from cappy_select.core.errors import InputError
from cappy_select.core.types import Candidate, Instruction, InstructionPolicy, Prompt
from cappy_select.scorer import OtherScorer, ScoredPairs, Scorer
from cappy_select.text.instruction import build_instruction
from cappy_select.text.messages import response_text

_T = TypeVar("_T")


class ScorerFailed(Exception):
    """A scorer that is not ours gave no scores; the message says why."""


class AnswerScoring:
    """Makes the scorer's instruction of a prompt, and scores answers to it.

    Args:
        scorer: Ours, or somebody else's.
        policy: How the instruction is made of the prompt.
        deadline_s: Seconds that a policy of the user's may take.
    """

    def __init__(self, scorer: Scorer | OtherScorer, policy: InstructionPolicy | None, deadline_s: float) -> None:
        self._scorer, self._policy, self._deadline_s = scorer, policy, deadline_s

    async def instruction(self, prompt: Prompt) -> Instruction:
        """The instruction, as long as the scorer's window takes. Raises InputError for a prompt that can't be read."""
        return await self._in_background(lambda: self._built(prompt, self._scorer.window))

    async def scores(self, texts: Sequence[str], instruction: Instruction, seconds: float) -> ScoredPairs:
        """Scores of response texts, float32[n], in their order.

        Raises:
            ScorerFailed: the scorer is somebody else's, and fails, or has not ended in so many seconds.
        """
        pairs = [(instruction.text, text) for text in texts]
        if isinstance(self._scorer, Scorer):
            return await self._scorer.ascore_detailed(pairs, instruction_side=instruction.cut_side)
        name = self._scorer.name
        try:
            async with asyncio.timeout(seconds):
                return await self._scorer.ascore_detailed(pairs)
        except TimeoutError as error:
            raise ScorerFailed(f"the scorer {name} had not ended after {seconds:.3g} s") from error
        except Exception as error:
            raise ScorerFailed(f"the scorer {name} failed: {type(error).__name__}: {error}") from error

    async def scored(
        self, prompt: Prompt, instruction: Instruction, candidates: Sequence[Candidate], seconds: float
    ) -> tuple[Instruction, list[Candidate]]:
        """The candidates with their scores; one without a finite score is rejected, and why is said.

        Returns the instruction as it was scored too: the turns of a chat it has room for depend on how long the answers
        are. Somebody else's scorer has so many seconds.
        """
        usable = [candidate for candidate in candidates if candidate.rejected is None]
        if not usable:
            return instruction, list(candidates)
        texts = [response_text(candidate.message) for candidate in usable]
        if instruction.policy == "chat":
            instruction = await self._in_background(lambda: self._fitted(prompt, texts))
        try:
            scored = await self.scores(texts, instruction, seconds)
        except ScorerFailed as error:
            failed = {"rejected": str(error)}
            return instruction, [each if each.rejected else each.model_copy(update=failed) for each in candidates]
        by_index = {
            candidate.index: candidate.model_copy(
                update={"score": score, "tokens_cut": int(cut)}
                if math.isfinite(score)
                else {"score": None, "tokens_cut": int(cut), "rejected": f"the score is {score}"}
            )
            for candidate, score, cut in zip(usable, scored.scores.tolist(), scored.response_cut, strict=True)
        }
        instruction = instruction.model_copy(update={"tokens_cut": int(scored.instruction_cut.max())})
        return instruction, [by_index.get(candidate.index, candidate) for candidate in candidates]

    def _built(self, prompt: Prompt, budget: int) -> Instruction:
        return build_instruction(
            prompt,
            self._policy,
            count_tokens=self._scorer.count_tokens,
            budget=budget,
            paper_side=self._scorer.cut_side,
        )

    def _fitted(self, prompt: Prompt, texts: Sequence[str]) -> Instruction:
        longest = max(self._scorer.count_tokens(text) for text in texts)
        window = self._scorer.window
        return self._built(prompt, max(window // 2, window - longest))

    async def _in_background(self, task: Callable[[], _T]) -> _T:
        if not callable(self._policy):
            return await background.work(task)
        seconds = self._deadline_s
        try:
            return await background.users_work(task, seconds)
        except TimeoutError as error:
            raise InputError(f"the instruction policy failed, or had not ended after {seconds:g} s: {error}") from error

"""In-context examples: choose some for a prompt, fit them into the model's window, put them before it.

Only what the LLM sees changes. The scorer reads the bare instruction unless told otherwise: it was trained on
instructions, and its window is short.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cappy_select.core.errors import InputError, MissingExtra, validation_message
from cappy_select.core.json_text import loads
from cappy_select.core.types import content_text
from cappy_select.text.similarity import words

CountTokens = Callable[[Sequence[dict[str, Any]]], int]

Choice = Literal["random", "bm25", "diverse"]
Rendering = Literal["messages", "text", "natural_instructions"]


class Example(BaseModel):
    """An input with its right output.

    Attributes:
        input: What is asked.
        output: The right answer.
        explanation: Why it is right, as Natural Instructions has it; shown by the rendering of that name alone.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    input: str
    output: str
    explanation: str | None = None


class InContext(BaseModel):
    """How examples go into a prompt.

    Args:
        pool: Examples to choose from, in order.
        k: How many; fewer when the window is too small: the last chosen is left out first.
        choose: `random` (the same for all prompts; by `seed`), `bm25` (the most like the prompt, by
            words; extra `icl`), `diverse` (as unlike each other as can be, the first by `seed`).
        render: `messages`: each example as a user and an assistant turn; `text`: all before the prompt in
            one message; `natural_instructions`: the schema of Mishra et al. 2022: definition, positive examples
            with their explanations, then the prompt as the input to complete.
        definition: What the task is, before the examples.
        max_tokens: Of the whole prompt; None: the window of the model that is asked, if its provider knows
            it, less what the answer may take.
        scorer_sees: The scorer reads the examples too.
        seed: Of the random choices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    pool: tuple[Example, ...] = Field(min_length=1)
    k: int = Field(4, ge=1)
    choose: Choice = "random"
    render: Rendering = "messages"
    definition: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    scorer_sees: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _definable(self) -> InContext:
        if self.render == "natural_instructions" and not self.definition:
            raise ValueError("natural_instructions needs a definition of the task")
        return self

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> InContext:
        """From JSONL with `input` and `output` a line, or from a Natural Instructions task file (JSON).

        Args:
            path: The file. Of a task file the definition and the positive examples are taken, and the rendering of that
                name.
            options: Fields of `InContext`, over those of the file.

        Returns:
            The examples, with how they go into a prompt.

        Raises:
            InputError: the file can't be read, or is neither; or an option is none.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} can't be read: {error}") from error
        try:
            return cls.model_validate(_task(text) | options)
        except ValidationError as error:
            raise InputError(f"{path}: {validation_message(error)}") from error
        except ValueError as error:
            raise InputError(f"{path} is neither JSONL of input and output nor a task file: {error}") from error

    def chosen(self, prompt: str) -> list[Example]:
        """The examples for a prompt, the most useful first. One that asks the prompt itself is never among them.

        Args:
            prompt: The last user message's text.

        Returns:
            At most `k` examples of the pool.

        Raises:
            MissingExtra: they are chosen by BM25, and bm25s is not installed.
        """
        able = [place for place, example in enumerate(self.pool) if example.input.strip() != prompt.strip()]
        if self.choose == "bm25":
            places = self._most_alike(prompt, able)
        elif self.choose == "diverse":
            places = self._most_unlike(able)
        else:
            places = random.Random(self.seed).sample(able, min(self.k, len(able)))  # noqa: S311
        return [self.pool[place] for place in places]

    def apply(
        self, messages: Sequence[dict[str, Any]], *, count_tokens: CountTokens | None = None, room: int | None = None
    ) -> tuple[tuple[dict[str, Any], ...], int]:
        """The messages with examples before the last user message, and how many examples those are.

        Args:
            messages: OpenAI-style; the last user message is the prompt.
            count_tokens: Length of messages in the model's tokens; None: no limit can be kept.
            room: Tokens that they may have; `max_tokens` wins if it is smaller.

        Returns:
            (messages, examples shown): as many of the chosen examples as fit, the most useful one next to the prompt.

        Raises:
            InputError: there is no user message, `max_tokens` is set and there is nothing to count with, or a rendering
                that rewrites the last user message finds more than text in it.
            MissingExtra: examples are chosen by BM25, and bm25s is not installed.
        """
        at = max((place for place, m in enumerate(messages) if m["role"] == "user"), default=None)
        if at is None:
            raise InputError("in-context examples go before a user message, and there is none")
        prompt = content_text(messages[at].get("content"))[0]
        limits = [limit for limit in (self.max_tokens, room) if limit is not None]
        if self.max_tokens is not None and count_tokens is None:
            raise InputError("max_tokens can't be kept: the provider does not count tokens")
        examples = self.chosen(prompt)
        fitting = len(examples)
        if limits and count_tokens is not None:
            numbers = range(1, len(examples) + 1)  # the more examples the longer: bisect
            fitting = bisect_right(
                numbers, min(limits), key=lambda n: count_tokens(self._rendered(messages, at, prompt, examples[:n]))
            )
        return self._rendered(messages, at, prompt, examples[:fitting]), fitting

    def _rendered(
        self, messages: Sequence[dict[str, Any]], at: int, prompt: str, examples: Sequence[Example]
    ) -> tuple[dict[str, Any], ...]:
        shown = examples[::-1]  # the most useful one last, next to the prompt
        before, question, rest = messages[:at], messages[at], messages[at + 1 :]
        if self.render == "messages":
            turns = [
                {"role": role, "content": content}
                for example in shown
                for role, content in (("user", example.input), ("assistant", example.output))
            ]
            return (*self._defined(before), *turns, question, *rest)
        if question.get("content") != prompt:
            raise InputError(f"{self.render} rewrites the last user message, which must be text alone")
        if self.render == "natural_instructions":
            text = natural_instructions(self.definition or "", shown, prompt)
        else:
            text = self._text(prompt, shown)
        return (*before, {**question, "content": text}, *rest)

    def _defined(self, before: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """With the definition: in the system message that is there already, for some models take only one."""
        if not self.definition:
            return before
        if before and before[0]["role"] in {"system", "developer"} and isinstance(before[0].get("content"), str):
            return [{**before[0], "content": f"{self.definition}\n\n{before[0]['content']}"}, *before[1:]]
        return [{"role": "system", "content": self.definition}, *before]

    def _text(self, prompt: str, examples: Sequence[Example]) -> str:
        parts = [self.definition] if self.definition else []
        return "\n\n".join([*parts, *(f"{example.input}\n{example.output}" for example in examples), prompt])

    def _most_alike(self, prompt: str, able: Sequence[int]) -> list[int]:
        asked = words(prompt) if self._index is not None else []
        scores = self._index.get_scores(asked) if asked else [0.0] * len(self.pool)
        return sorted(able, key=lambda place: (-scores[place], place))[: self.k]

    @cached_property
    def _index(self) -> Any:
        try:
            import bm25s
        except ImportError as error:
            raise MissingExtra("icl", "choosing examples by BM25", "bm25s") from error
        corpus = [words(example.input) for example in self.pool]
        if not any(corpus):
            return None  # nothing is like anything
        index = bm25s.BM25()
        index.index(corpus, show_progress=False)
        return index

    def _most_unlike(self, able: Sequence[int]) -> list[int]:
        """Greedy: each next one has the smallest overlap of words with its nearest among those taken."""
        bags = [frozenset(words(self.pool[place].input)) for place in able]
        taken = [random.Random(self.seed).randrange(len(able))] if able else []  # noqa: S311
        nearest = [_overlap(bag, bags[taken[0]]) for bag in bags] if taken else []
        while len(taken) < min(self.k, len(able)):
            free = (place for place in range(len(able)) if place not in taken)
            taken.append(min(free, key=lambda place: (nearest[place], place)))
            nearest = [max(was, _overlap(bag, bags[taken[-1]])) for was, bag in zip(nearest, bags, strict=True)]
        return [able[place] for place in taken]


def natural_instructions(definition: str, examples: Sequence[Example], prompt: str) -> str:
    """Definition, positive examples with their explanations, then the prompt as the input to complete.

    The encoding of Mishra et al. 2022 and of Wang et al. 2022 (Tk-Instruct).
    """
    parts = [f"Definition: {definition}"]
    for number, example in enumerate(examples, 1):
        lines = [f"Positive Example {number} -", f"Input: {example.input}", f"Output: {example.output}"]
        parts.append("\n".join(lines + ([f"Explanation: {example.explanation}"] if example.explanation else [])))
    parts.append(f"Now complete the following example -\nInput: {prompt}\nOutput:")
    return "\n\n".join(parts)


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    """Jaccard similarity."""
    return len(first & second) / len(first | second) if first or second else 1.0


def _task(text: str) -> dict[str, Any]:
    try:
        task = loads(text)
    except ValueError:
        return {"pool": [loads(line) for line in text.splitlines() if line.strip()]}
    if not isinstance(task, dict) or "Positive Examples" not in task:
        return {"pool": task if isinstance(task, list) else [task]}
    definition = task.get("Definition") or ""
    definition = "\n".join(definition) if isinstance(definition, list) else str(definition)
    return {"definition": definition, "render": "natural_instructions", "pool": task["Positive Examples"]}

"""What counts as a scorer: one of ours, a function of pairs, or any object with `score_pairs`."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cappy_select.core.daemon_pool import DaemonPool
from cappy_select.core.errors import InputError
from cappy_select.core.types import CutSide
from cappy_select.scorer.scorer import ScoredPairs, Scorer

Pairs = Sequence[tuple[str, str]]


@runtime_checkable
class PairScorer(Protocol):
    """Anything that says how right responses are: a reward model, a service, a judge.

    It may have a `name` and a `version`, which a Selection records, and an async `ascore_pairs`, which is awaited
    where there is an event loop.
    """

    def score_pairs(self, pairs: Pairs, /) -> Any:
        """How right each response is.

        Args:
            pairs: (instruction, response), each pair once or several times.

        Returns:
            A number for each pair, in their order, higher for better; NaN for one that can't win. A list or an array of
            shape [pairs].
        """
        ...


class OtherScorer:
    """A scorer that is not ours, with what a Selector asks of one. It runs in threads that nobody waits for.

    Args:
        given: A function of (instruction, response) pairs that returns a number for each, or an object with such a
            `score_pairs`. An async function is awaited; so is an object's `ascore_pairs`, where there is an event loop.
    """

    window = 2**20
    """Tokens that a pair may have: what it cuts itself is its own affair."""
    cut_side: CutSide = "left"

    def __init__(self, given: PairScorer | Callable[[Pairs], Any]) -> None:
        self.given = given
        self._score: Callable[[Pairs], Any] = given.score_pairs if isinstance(given, PairScorer) else given
        own = getattr(given, "ascore_pairs", None)
        self._ascore = own if inspect.iscoroutinefunction(own) else None
        if inspect.iscoroutinefunction(self._score):
            self._ascore, self._score = self._score, _only_awaited

    @property
    def name(self) -> str:
        """Its name and version, as far as it says them."""
        named = getattr(self.given, "name", None) or getattr(self.given, "__qualname__", type(self.given).__qualname__)
        return f"{named} {getattr(self.given, 'version', '')}".strip()

    def count_tokens(self, text: str) -> int:
        """About: four characters are one.

        Args:
            text: Any.

        Returns:
            Tokens, rounded up.
        """
        return -(-len(text) // 4)

    def score_pairs(self, pairs: Iterable[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """The scores that it gives. What it raises itself is raised here.

        Args:
            pairs: (instruction, response).

        Returns:
            np.float32[pairs], in their order.

        Raises:
            InputError: it gave no numbers, or not one for each pair; or it is async and can't be waited for here.
        """
        asked = list(pairs)
        return _numbers(self._score(asked), len(asked), self.name)

    async def ascore_detailed(
        self, pairs: Iterable[tuple[str, str]], *, instruction_side: CutSide | None = None
    ) -> ScoredPairs:
        """As a `Scorer`'s: nothing is ever cut. What the scorer raises itself is raised here.

        Args:
            pairs: (instruction, response).
            instruction_side: Not used, for nothing is cut.

        Returns:
            The scores, with zeros for what was cut.

        Raises:
            InputError: it gave no numbers, or not one for each pair.
        """
        asked = list(pairs)
        if self._ascore is not None:
            found = _numbers(await self._ascore(asked), len(asked), self.name)
        else:
            found = await asyncio.wrap_future(_threads.submit(lambda: self.score_pairs(asked)))
        none = np.zeros(len(asked), np.int64)
        return ScoredPairs(found, none, none)


def as_scorer(given: Scorer | PairScorer | Callable[[Pairs], Any] | str | Path | None) -> Scorer | OtherScorer:
    """A scorer of ours, loaded if need be, or another one.

    Args:
        given: A scorer of ours; a folder or `hf://org/name`, which is loaded; None for the embedded default; a function
            of (instruction, response) pairs, or an object with `score_pairs`.

    Returns:
        The scorer.

    Raises:
        InputError: it is none of these.
        BundleError: it can't be loaded.
    """
    if isinstance(given, Scorer | OtherScorer):
        return given
    if given is None or isinstance(given, str | Path):
        return Scorer.load(given)
    if not isinstance(given, type) and (isinstance(given, PairScorer) or callable(given)):
        return OtherScorer(given)
    raise InputError(
        "a scorer is a Scorer, a folder, hf://org/name, a function of (instruction, response) pairs, or an object with "
        f"`score_pairs`, got {type(given).__name__}"
    )


def _numbers(given: Any, count: int, name: str) -> npt.NDArray[np.float32]:
    try:
        found = np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"the scorer {name} gave no numbers: {error}") from error
    if found.shape != (count,):
        raise InputError(f"the scorer {name} must give {count} numbers, one for each pair, got {found.shape}")
    return found


def _only_awaited(_: Pairs) -> Any:
    raise InputError("this scorer is async: use aselect, or give it a `score_pairs` that is not")


_threads = DaemonPool("cappy-scorer", 1000, at_a_time=8, patience_s=math.inf)

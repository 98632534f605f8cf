"""`Scorer`: how right is this response to this instruction?"""

from __future__ import annotations

import asyncio
import math
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cappy_select.bundle.bundle import Bundle
from cappy_select.bundle.resolve import resolve
from cappy_select.core.copies import made_again
from cappy_select.core.daemon_pool import DaemonPool
from cappy_select.core.errors import InputError, TruncationWarning
from cappy_select.core.types import CutSide
from cappy_select.scorer.batching import Batcher
from cappy_select.scorer.cache import CacheInfo, Key, Known, ScoreCache, text_digest
from cappy_select.scorer.encoding import Pair, PairEncoder, Tokens, checked
from cappy_select.scorer.planning import shares, tokens_per_batch, windows
from cappy_select.scorer.session import Session, usable_cores

_T = TypeVar("_T")
_TextPair = tuple[str, str]
# What scoring waits for: a future, or work that an async caller hands to a thread.
_Steps = Generator["Future[Any] | Callable[[], Any]", Any, _T]


@dataclass(frozen=True, slots=True)
class Ranked:
    """One response's place in a ranking.

    Attributes:
        index: The response's place among those given, from 0.
        response: The response.
        score: The raw score; NaN when the model gave none.
        tokens_cut: Tokens that did not fit the window, of instruction and response together.
    """

    index: int
    response: str
    score: float
    tokens_cut: int


@dataclass(frozen=True)
class ScoredPairs:
    """Scores, and how many tokens of each pair did not fit the window.

    Attributes:
        scores: np.float32[pairs]; raw: they may leave [0, 1].
        instruction_cut: np.int64[pairs]: tokens cut from each instruction.
        response_cut: np.int64[pairs]: tokens cut from each response.
    """

    scores: npt.NDArray[np.float32]  # [pairs], raw: may leave [0, 1]
    instruction_cut: npt.NDArray[np.int64]  # [pairs], tokens
    response_cut: npt.NDArray[np.int64]  # [pairs], tokens

    @property
    def cut(self) -> npt.NDArray[np.int64]:
        """Tokens cut from either side: int64[pairs]."""
        return self.instruction_cut + self.response_cut


@made_again
class Scorer:
    """Scores (instruction, response) pairs with a bundle. Safe to share between threads and event loops.

    A copy is the same scorer. A pickle names the bundle's folder, and loads it where it is read; no scores are kept.

    A score is the model's raw output: trained towards a correctness in [0, 1], but free to leave it (Cappy,
    Tan et al. 2023, section 3.1). Compare scores of responses to the same instruction.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        cache: ScoreCache | bool = True,
    ) -> None:
        """Load a verified bundle; see `Scorer.load` for the usual way.

        Args:
            bundle: From `cappy_select.bundle.bundle.load_bundle` or `resolve`.
            providers: onnxruntime execution providers, best first; default CPU. On others a score may depend on its
                batch in the last bits, so there is no cache.
            threads: Threads for one batch; default the cores this process may use.
            cache: False for none; a `ScoreCache` to set its size or to share it between scorers.

        Raises:
            InputError: this onnxruntime has no such execution provider, `threads` is no whole number of at least 1, or
                `cache` is none, or can't be kept with these execution providers.
            BundleDamaged: the model or the tokenizer is not the one of the manifest, or none that may be run.
        """
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise InputError(f"threads must be a whole number of at least 1, got {threads!r}")
        if not isinstance(cache, (ScoreCache, bool)):
            raise InputError(f"cache must be True, False or a ScoreCache, got {cache!r}: try ScoreCache({cache!r})")
        threads = threads or usable_cores()
        self.bundle = bundle
        self._encoder = PairEncoder.of(bundle)
        self._session = Session(bundle, providers=providers, threads=threads)
        if isinstance(cache, ScoreCache) and not self._session.exact:
            raise InputError(
                f"a score from {', '.join(self._session.providers)} may depend on its batch, so it can't be cached: "
                "leave cache out, or use the CPU"
            )
        own = ScoreCache() if cache is True and self._session.exact else None
        self._cache = cache if isinstance(cache, ScoreCache) else own
        self._batcher = Batcher(tokens_per_batch(threads))

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        *,
        revision: str | None = None,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        cache: ScoreCache | bool = True,
    ) -> Scorer:
        """Load the embedded default (None), a bundle folder, or a hub id written `hf://org/name`.

        Args:
            source: What to load; an existing path wins over every other reading.
            revision: Branch, tag or commit of a hub repository.
            providers, threads, cache: As those of `Scorer`.

        Returns:
            The scorer, ready to score.

        Raises:
            BundleError: the bundle is missing, damaged, or of a newer format.
            InputError: `source`, `revision` or another argument can't be used.
            MissingExtra: a hub checkpoint has to be exported first, and the `export` extra is missing.
        """
        return cls(resolve(source, revision=revision), providers=providers, threads=threads, cache=cache)

    @property
    def name(self) -> str:
        """The bundle's name, version, precision and digest."""
        return str(self.bundle)

    @property
    def cut_side(self) -> CutSide:
        """Where a too long instruction loses tokens, as the manifest says."""
        return self.bundle.manifest.cut_side

    @property
    def window(self) -> int:
        """Tokens that an instruction and a response may have together, special tokens not counted."""
        return self._encoder.room

    def count_tokens(self, text: str) -> int:
        """Length of a text in this scorer's tokens, special tokens not counted.

        Args:
            text: Any.

        Returns:
            Tokens of the whole text, also beyond the window.

        Raises:
            InputError: it is no str.
        """
        if not isinstance(text, str):
            raise InputError(f"the text must be a str, got {type(text).__name__}")
        return self._encoder.count(text)

    def cache_info(self) -> CacheInfo | None:
        """The counters of the score cache; None when there is none."""
        return self._cache.info() if self._cache else None

    def score(self, instruction: str, responses: Iterable[str]) -> npt.NDArray[np.float32]:
        """Scores of several responses to one instruction.

        Warns `TruncationWarning` when a pair did not fit the window.

        Args:
            instruction: What was asked.
            responses: The answers; all are held at once.

        Returns:
            np.float32[responses], in their order.

        Raises:
            InputError: a text is no str, or `responses` is one str.
        """
        return self._scores(self.score_detailed(_against(instruction, responses)))

    async def ascore(self, instruction: str, responses: Iterable[str]) -> npt.NDArray[np.float32]:
        """`score` for async callers: those that score at the same time share batches.

        Args:
            instruction, responses: As in `score`.

        Returns:
            np.float32[responses], in their order.

        Raises:
            InputError: as `score`.
        """
        return self._scores(await self.ascore_detailed(_against(instruction, responses)))

    def score_pairs(self, pairs: Iterable[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Scores of any mix of (instruction, response) pairs.

        Warns `TruncationWarning` when a pair did not fit the window.

        Args:
            pairs: Any number of them: of a generator only a window is held at a time.

        Returns:
            np.float32[pairs], in their order.

        Raises:
            InputError: a pair is no two strs; names it.
        """
        return self._scores(self.score_detailed(pairs))

    async def ascore_pairs(self, pairs: Iterable[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """`score_pairs` for async callers: those that score at the same time share batches.

        Args:
            pairs: As in `score_pairs`.

        Returns:
            np.float32[pairs], in their order.

        Raises:
            InputError: as `score_pairs`.
        """
        return self._scores(await self.ascore_detailed(pairs))

    def rank(self, instruction: str, responses: Iterable[str]) -> list[Ranked]:
        """The responses, best first; the earlier one first on a tie, NaN last.

        Warns `TruncationWarning` when a pair did not fit the window.

        Args:
            instruction: What was asked.
            responses: The answers; all are held at once.

        Returns:
            One entry for each response.

        Raises:
            InputError: a text is no str, or `responses` is one str.
        """
        pairs = _against(instruction, responses)
        return self._ranked(pairs, self.score_detailed(pairs))

    async def arank(self, instruction: str, responses: Iterable[str]) -> list[Ranked]:
        """`rank` for async callers: those that score at the same time share batches.

        Args:
            instruction, responses: As in `rank`.

        Returns:
            One entry for each response, best first.

        Raises:
            InputError: as `rank`.
        """
        pairs = _against(instruction, responses)
        return self._ranked(pairs, await self.ascore_detailed(pairs))

    def score_detailed(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        instruction_side: CutSide | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> ScoredPairs:
        """Scores of pairs with what was cut of each; warns of nothing.

        Args:
            pairs: (instruction, response), any strings, empty ones too.
            instruction_side: Where a too long instruction loses tokens; default as the manifest says.
            on_progress: Called every few batches with the number of pairs, repeated ones too, that became known. It
                must not score with this scorer itself.

        Returns:
            Scores and counts, in the order of the pairs.

        Raises:
            InputError: a pair is no two strs, or `instruction_side` is none.
        """
        return _joined(list(self.stream(pairs, instruction_side=instruction_side, on_progress=on_progress)))

    async def ascore_detailed(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        instruction_side: CutSide | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> ScoredPairs:
        """`score_detailed` for async callers. Cancelling it disturbs no other caller.

        Args:
            pairs, instruction_side, on_progress: As in `score_detailed`.

        Returns:
            Scores and counts, in the order of the pairs.

        Raises:
            InputError: as `score_detailed`.
        """
        side = self._side(instruction_side)
        known = await asyncio.wrap_future(_encoders.submit(partial(_checked, pairs)))
        return _joined([await _alone(self._score_window(window, side, on_progress)) for window in windows(known)])

    def stream(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        instruction_side: CutSide | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Iterator[ScoredPairs]:
        """`score_detailed` piece by piece, in order: for more pairs than should be held at once.

        Args:
            pairs, instruction_side, on_progress: As in `score_detailed`. Of the pairs and of their results one window
                (4,096 pairs, or 4 million characters) is held at a time.

        Yields:
            Scores and counts of a window's pairs.

        Raises:
            InputError: as `score_detailed`, when a window is read that holds such a pair.
        """
        side = self._side(instruction_side)
        for window in windows(_checked(pairs)):
            yield _blocking(self._score_window(window, side, on_progress))

    def _side(self, side: CutSide | None) -> CutSide:
        if side not in (None, "left", "right"):
            raise InputError(f"instruction_side must be 'left' or 'right', got {side!r}")
        return side or self.cut_side

    def _score_window(
        self, window: list[_TextPair], side: CutSide, on_progress: Callable[[int], None] | None
    ) -> _Steps[ScoredPairs]:
        """Score each distinct pair once; yields what has to be waited for."""
        repeats = Counter(window)
        keys: dict[_TextPair, Key] = {}
        known: dict[_TextPair, Known] = {}
        if self._cache:
            keys = yield partial(self._keys, repeats, side)
            cached = self._cache.find(keys.values())
            known = {pair: cached[key] for pair, key in keys.items() if key in cached}
        if on_progress and known:
            on_progress(sum(repeats[pair] for pair in known))

        new = [pair for pair in repeats if pair not in known]
        if new:
            limiter = self._batcher.limiter
            ticket = limiter.enter(len(new))
            try:
                yield ticket
                rows: list[Pair] = yield partial(self._encode, new, side)
                order = sorted(range(len(rows)), key=lambda row: -rows[row].length)
                for share in shares([rows[row].length for row in order], self._batcher.tokens_per_batch):
                    taken = order[share]
                    scores = yield self._batcher.submit([rows[row] for row in taken], self._run)
                    for row, score in zip(taken, scores.tolist(), strict=True):
                        known[new[row]] = Known(score, rows[row].instruction_cut, rows[row].response_cut)
                    if self._cache:
                        self._cache.keep({keys[new[row]]: known[new[row]] for row in taken})
                    if on_progress:
                        on_progress(sum(repeats[new[row]] for row in taken))
            finally:
                limiter.leave(ticket, len(new))

        found = [known[pair] for pair in window]
        return ScoredPairs(
            np.array([one.score for one in found], np.float32),
            np.array([one.instruction_cut for one in found], np.int64),
            np.array([one.response_cut for one in found], np.int64),
        )

    def _keys(self, pairs: Iterable[_TextPair], side: CutSide) -> dict[_TextPair, Key]:
        digests = {text: text_digest(text) for pair in pairs for text in pair}
        return {pair: (self.bundle.digest, side, digests[pair[0]], digests[pair[1]]) for pair in pairs}

    def _encode(self, pairs: Sequence[_TextPair], side: CutSide) -> list[Pair]:
        """Each distinct text encoded once."""
        instructions = self._tokens((instruction for instruction, _ in pairs), side)
        responses = self._tokens((response for _, response in pairs), "right")
        return [self._encoder.pair(instructions[a], responses[b], side) for a, b in pairs]

    def _tokens(self, texts: Iterable[str], side: CutSide) -> dict[str, Tokens]:
        distinct = list(dict.fromkeys(texts))
        return dict(zip(distinct, self._encoder.tokens(distinct, side), strict=True))

    def _run(self, batch: Sequence[Pair]) -> npt.NDArray[np.float32]:
        return self._session.run([self._encoder.join(pair) for pair in batch])

    def _ranked(self, pairs: list[_TextPair], scored: ScoredPairs) -> list[Ranked]:
        order = np.argsort(-self._scores(scored, stacklevel=4), kind="stable")  # NaN sorts last
        return [Ranked(int(i), pairs[i][1], float(scored.scores[i]), int(scored.cut[i])) for i in order]

    def _scores(self, scored: ScoredPairs, stacklevel: int = 3) -> npt.NDArray[np.float32]:
        """The bare scores; what they don't show, truncation, becomes a warning at the caller's line."""
        number_cut = int(np.count_nonzero(scored.cut))
        if number_cut:
            warnings.warn(
                f"{number_cut} of {len(scored.scores)} pairs did not fit the scorer's window of "
                f"{self.bundle.manifest.max_length} tokens and were cut (at most {scored.cut.max()} tokens of one)",
                TruncationWarning,
                stacklevel=stacklevel,
            )
        return scored.scores


def _blocking(steps: _Steps[_T]) -> _T:
    """Go through the steps, waiting in this thread."""
    step: Future[Any] | Callable[[], Any] | None = None
    try:
        step = next(steps)
        while True:
            step = steps.send(step.result() if isinstance(step, Future) else step())
    except StopIteration as done:
        result: _T = done.value
        return result
    finally:
        if isinstance(step, Future):
            step.cancel()  # an interrupt: nobody waits for it any more
        steps.close()


async def _alone(steps: _Steps[_T]) -> _T:
    """Go through the steps, off the event loop."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Future):
                step = steps.send(await asyncio.wrap_future(step))
            else:
                step = steps.send(await asyncio.wrap_future(_encoders.submit(step)))
    except StopIteration as done:
        result: _T = done.value
        return result
    finally:
        steps.close()


# Threads that tokenise for async callers. They last as long as any caller.
_encoders = DaemonPool("cappy-encode", 1000, at_a_time=2, patience_s=math.inf)


def _joined(pieces: list[ScoredPairs]) -> ScoredPairs:
    return ScoredPairs(
        np.concatenate([np.empty(0, np.float32), *(piece.scores for piece in pieces)]),
        np.concatenate([np.empty(0, np.int64), *(piece.instruction_cut for piece in pieces)]),
        np.concatenate([np.empty(0, np.int64), *(piece.response_cut for piece in pieces)]),
    )


def _checked(pairs: Iterable[_TextPair]) -> Iterable[_TextPair]:
    """Checked before any is scored when they can be read twice, else as they come."""
    if not isinstance(pairs, Iterable):
        raise InputError(f"pairs must be (instruction, response) tuples, got {type(pairs).__name__}")
    return list(checked(pairs)) if isinstance(pairs, Sequence) else checked(pairs)


def _against(instruction: str, responses: Iterable[str]) -> list[_TextPair]:
    if not isinstance(instruction, str):
        raise InputError(f"the instruction must be a str, got {type(instruction).__name__}")
    if isinstance(responses, str):
        raise InputError("responses must be several strings, got one str: put it in a list")
    if not isinstance(responses, Iterable):
        raise InputError(f"responses must be several strings, got {type(responses).__name__}")
    return [(instruction, response) for response in responses]

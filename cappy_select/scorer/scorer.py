"""`Scorer`: how right is this response to this instruction?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cappy_select.bundle import Bundle, resolve
from cappy_select.errors import InputError, TruncationWarning
from cappy_select.scorer.encoding import PairEncoder, Tokens, check_pairs
from cappy_select.scorer.planning import plan
from cappy_select.scorer.session import Session
from cappy_select.types import CutSide


@dataclass(frozen=True, slots=True)
class Ranked:
    """One response's place in a ranking; `tokens_cut` counts what did not fit the window, of both sides."""

    index: int
    response: str
    score: float
    tokens_cut: int


@dataclass(frozen=True)
class ScoredPairs:
    """Scores, and how many tokens of each pair did not fit the window."""

    scores: npt.NDArray[np.float32]  # [pairs], raw: may leave [0, 1]
    instruction_cut: npt.NDArray[np.int64]  # [pairs], tokens
    response_cut: npt.NDArray[np.int64]  # [pairs], tokens

    @property
    def cut(self) -> npt.NDArray[np.int64]:
        """Tokens cut from either side: int64[pairs]."""
        return self.instruction_cut + self.response_cut


class Scorer:
    """Scores (instruction, response) pairs with a bundle. Safe to share between threads and event loops.

    A score is the model's raw output: trained towards a correctness in [0, 1], but free to leave it (Cappy,
    Tan et al. 2023, section 3.1). Compare scores of responses to the same instruction.
    """

    def __init__(self, bundle: Bundle, *, providers: Sequence[str] | None = None, threads: int | None = None) -> None:
        """Load a verified bundle; see `Scorer.load` for the usual way.

        Args:
            bundle: From `cappy_select.bundle.load_bundle` or `resolve`.
            providers: onnxruntime execution providers, best first; default CPU.
            threads: Threads for one batch; default the cores this process may use.
        """
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}")
        self.bundle = bundle
        self._encoder = PairEncoder(bundle)
        self._session = Session(bundle, providers=providers, threads=threads)

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        *,
        revision: str | None = None,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
    ) -> Scorer:
        """Load the embedded default (None), a bundle folder, or a hub id written `hf://org/name`.

        Raises:
            BundleError: the bundle is missing, damaged, or of a newer format.
            MissingExtra: a hub checkpoint has to be exported first, and the `export` extra is missing.
        """
        return cls(resolve(source, revision=revision), providers=providers, threads=threads)

    @property
    def window(self) -> int:
        """Tokens that an instruction and a response may have together, special tokens not counted."""
        return self._encoder.room

    def count_tokens(self, text: str) -> int:
        """Length of a text in this scorer's tokens, special tokens not counted."""
        return self._encoder.count(text)

    def score(self, instruction: str, responses: Iterable[str]) -> npt.NDArray[np.float32]:
        """Scores of several responses to one instruction: float32[responses], in their order.

        Warns `TruncationWarning` when a pair did not fit the window.
        """
        return self._scores(self.score_detailed(_against(instruction, responses)))

    def score_pairs(self, pairs: Iterable[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Scores of any mix of (instruction, response) pairs: float32[pairs], in their order.

        Warns `TruncationWarning` when a pair did not fit the window.
        """
        return self._scores(self.score_detailed(pairs))

    def rank(self, instruction: str, responses: Iterable[str]) -> list[Ranked]:
        """The responses, best first; the earlier one first on a tie, NaN last.

        Warns `TruncationWarning` when a pair did not fit the window.
        """
        pairs = _against(instruction, responses)
        scored = self.score_detailed(pairs)
        order = np.argsort(-self._scores(scored), kind="stable")  # NaN sorts last
        return [Ranked(int(i), pairs[i][1], float(scored.scores[i]), int(scored.cut[i])) for i in order]

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
            on_progress: Called after each batch with the number of distinct pairs it scored.
        """
        checked = check_pairs(pairs)
        side = instruction_side or self.bundle.manifest.cut_side
        distinct = list(dict.fromkeys(checked))
        instructions = self._tokens((instruction for instruction, _ in distinct), side)
        responses = self._tokens((response for _, response in distinct), "right")

        lengths = [self._encoder.length(instructions[a], responses[b]) for a, b in distinct]
        scores = np.empty(len(distinct), np.float32)
        cut = np.empty((len(distinct), 2), np.int64)  # [pairs, instruction and response]
        for batch in plan(lengths):
            rows = [self._encoder.join(instructions[distinct[i][0]], responses[distinct[i][1]], side) for i in batch]
            scores[batch] = self._session.run(rows)
            cut[batch] = [(row.instruction_cut, row.response_cut) for row in rows]
            if on_progress:
                on_progress(len(batch))

        place = {pair: number for number, pair in enumerate(distinct)}
        back = np.array([place[pair] for pair in checked], np.int64)
        return ScoredPairs(scores[back], instruction_cut=cut[back, 0], response_cut=cut[back, 1])

    def _scores(self, scored: ScoredPairs) -> npt.NDArray[np.float32]:
        """The bare scores; what they don't show, truncation, becomes a warning at the caller's line."""
        number_cut = int(np.count_nonzero(scored.cut))
        if number_cut:
            warnings.warn(
                f"{number_cut} of {len(scored.scores)} pairs did not fit the scorer's window of "
                f"{self.bundle.manifest.max_length} tokens and were cut (at most {scored.cut.max()} tokens of one)",
                TruncationWarning,
                stacklevel=3,
            )
        return scored.scores

    def _tokens(self, texts: Iterable[str], side: CutSide) -> dict[str, Tokens]:
        """Each distinct text encoded once."""
        distinct = list(dict.fromkeys(texts))
        return dict(zip(distinct, self._encoder.tokens(distinct, side), strict=True))


def _against(instruction: str, responses: Iterable[str]) -> list[tuple[str, str]]:
    if not isinstance(instruction, str):
        raise InputError(f"the instruction must be a str, got {type(instruction).__name__}")
    if isinstance(responses, str):
        raise InputError("responses must be several strings, got one str: put it in a list")
    if not isinstance(responses, Iterable):
        raise InputError(f"responses must be several strings, got {type(responses).__name__}")
    return [(instruction, response) for response in responses]

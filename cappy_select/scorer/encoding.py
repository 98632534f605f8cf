"""From text pairs to token ids.

Each text is encoded once, on its own and without truncation, and the pair is cut by our own arithmetic:
`tokenizers`' pair truncation materialises every overflowing part, which kills the process on a megabyte of
text, and changing its truncation setting per call races between threads (huggingface/tokenizers#537).

The name of a special token in a text (`[SEP]`, `</s>`) is text: only `PairEncoder.join` puts such tokens anywhere, so
an answer can't fake where it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from cappy_select.bundle.bundle import Bundle
from cappy_select.bundle.manifest import TOKENIZER
from cappy_select.core.errors import BundleDamaged, InputError
from cappy_select.core.fork import starts_anew_in_child
from cappy_select.core.types import CutSide
from cappy_select.scorer.native import Exiting, native_call
from cappy_select.scorer.tokenizer_rules import Refused, checked_tokenizer

Ids = npt.NDArray[np.int64]

_CHARS_AT_ONCE = 500_000  # an Encoding takes about 100 bytes a character: a longer text is alone


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text's tokens: how many it has, and those that can be needed."""

    length: int
    kept: Ids  # [min(length, room)], from the side that survives a cut


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair as it will be cut to the window; `PairEncoder.join` makes its ids when its batch runs."""

    instruction: Tokens
    response: Tokens
    keep: tuple[int, int]  # tokens of each that stay
    side: CutSide  # where the instruction is cut; the response is cut on its right
    length: int  # tokens, special ones included

    @property
    def instruction_cut(self) -> int:
        """Tokens of the instruction that did not fit."""
        return self.instruction.length - self.keep[0]

    @property
    def response_cut(self) -> int:
        """Tokens of the response that did not fit."""
        return self.response.length - self.keep[1]


class PairEncoder:
    """Encodes as the checkpoint's own tokenizer encodes a pair, `longest_first`, for any length of text."""

    def __init__(self, content: bytes, max_length: int, path: Path, *, trusted: bool = False) -> None:
        """Of a `tokenizer.json`'s content, for pairs of at most `max_length` tokens. Raises BundleDamaged.

        What is not `trusted` may only do what `tokenizer_rules` allows.
        """
        try:
            checked_content = content.decode() if trusted else checked_tokenizer(content)
        except Refused as error:
            raise BundleDamaged(f"{path} is no tokenizer that a scorer may have, and is not loaded: {error}") from error
        try:
            with _panics_as_errors(), native_call():
                self._tokenizer = Tokenizer.from_str(checked_content)
                self._tokenizer.no_truncation()  # the file may carry both
                self._tokenizer.no_padding()
                self._read_template(path)
        except (BundleDamaged, Exiting):
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleDamaged(f"{path} is not a tokenizer this version reads: {error}") from error
        self.special_count = sum(len(ids) for ids, _ in self._specials)
        self.room = max_length - self.special_count
        if self.room < 2:
            raise BundleDamaged(f"{path}: the special tokens fill the window of {max_length} tokens")

    @classmethod
    def of(cls, bundle: Bundle) -> PairEncoder:
        """A bundle's own."""
        content, path = bundle.read(TOKENIZER), bundle.path / TOKENIZER
        return cls(content, bundle.manifest.max_length, path, trusted=bundle.is_embedded)

    def _read_template(self, path: Path) -> None:
        """Learn from one pair where the special tokens stand and which type ids each part has."""
        probe = self._tokenizer.encode("a", "b")
        parts: list[int | None] = list(probe.sequence_ids)
        if 0 not in parts or 1 not in parts:
            raise BundleDamaged(f"{path}: the tokenizer does not encode pairs")
        first, last_first = parts.index(0), len(parts) - parts[::-1].index(0)
        second, last_second = parts.index(1), len(parts) - parts[::-1].index(1)
        ids, types = np.array(probe.ids, np.int64), np.array(probe.type_ids, np.int64)
        self._specials = [
            (ids[part], types[part])
            for part in (slice(0, first), slice(last_first, second), slice(last_second, len(ids)))
        ]
        self._type_of = (int(types[first]), int(types[second]))
        self._tokenizer.encode_special_tokens = True  # their names, in a text, are words like any other
        for number in {int(each) for ids, _ in self._specials for each in ids}:
            name = self._tokenizer.id_to_token(number) or ""
            if number in self._tokenizer.encode(name, add_special_tokens=False).ids:
                self._tokenizer.add_special_tokens([name])  # it was listed as a plain one

    @property
    def vocabulary(self) -> int:
        """Token ids are below this."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def count(self, text: str) -> int:
        """Tokens of one text, special tokens not counted."""
        return len(self._encode_batch([text])[0].ids)

    def tokens(self, texts: Iterable[str], side: CutSide = "right") -> Iterator[Tokens]:
        """Each text's tokens, in order; a cut from `side` spares the other end."""
        for chunk in _chunks(texts, _CHARS_AT_ONCE):
            for encoding in self._encode_batch(chunk):
                ids = encoding.ids
                kept = ids[: self.room] if side == "right" else ids[-self.room :]
                yield Tokens(len(ids), np.array(kept, np.int64))

    def pair(self, instruction: Tokens, response: Tokens, side: CutSide = "right") -> Pair:
        """The pair cut `longest_first`; `side` is where the instruction loses what it must."""
        keep = longest_first(instruction.length, response.length, self.room)
        return Pair(instruction, response, keep, side, sum(keep) + self.special_count)

    def join(self, pair: Pair) -> tuple[Ids, Ids]:
        """The token ids and the type ids of a pair, with its special tokens: int64[length] each."""
        keep_first, keep_second = pair.keep
        kept = pair.instruction.kept
        first = kept[:keep_first] if pair.side == "right" else kept[len(kept) - keep_first :]
        second = pair.response.kept[:keep_second]
        before, between, after = self._specials
        first_type, second_type = self._type_of
        return (
            np.concatenate([before[0], first, between[0], second, after[0]]),
            np.concatenate(
                [
                    before[1],
                    np.full(keep_first, first_type),
                    between[1],
                    np.full(keep_second, second_type),
                    after[1],
                ]
            ),
        )

    def _encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        _parallel.used = True
        encodable = [_without_surrogates(text) for text in texts]
        with _panics_as_errors(), native_call():
            encodings: list[Encoding] = self._tokenizer.encode_batch_fast(encodable, add_special_tokens=False)
        return encodings


class _Parallel:
    """Whether tokenizers' threads were made: a forked child has not got them, and a call would wait for them."""

    used = False

    def start_anew(self) -> None:
        if self.used:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"  # read at each call


_parallel = _Parallel()
starts_anew_in_child(_parallel)


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    """A panic in Rust is no Exception in Python, and would pass all who handle errors."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise BundleDamaged(f"the tokenizer gives up: {error}") from error


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each side stay: the longer one gives way until both fit, then both alike.

    The arithmetic of `truncate_encodings` in huggingface/tokenizers (`LongestFirst`): when both are longer
    than half the room, the longer side (the second on a tie) keeps the odd token.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second)
    if shorter <= room // 2:
        return (first, room - first) if first <= second else (room - second, second)
    half, larger_half = room // 2, room - room // 2
    return (larger_half, half) if first > second else (half, larger_half)


def checked(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The pairs, one by one. Raises InputError at the first that is not two strings."""
    for position, pair in enumerate(pairs):
        is_pair = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
        if not is_pair or not all(isinstance(text, str) for text in pair):
            raise InputError(
                f"pair {position} must be (instruction, response), two strings, got {type(pair).__name__} {pair!r:.80}"
            )
        yield pair[0], pair[1]


def _without_surrogates(text: str) -> str:
    """Lone surrogates have no UTF-8 form; replace them as every decoder does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _chunks(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Runs of texts that have at most so many characters together, or are one text."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        if chunk and size + len(text) > characters:
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text) + 1
    if chunk:
        yield chunk

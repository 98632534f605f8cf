"""Scores that were computed before. Exact, because a score computed on a CPU depends on the pair alone."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cappy_select.core.copies import made_again
from cappy_select.core.errors import InputError
from cappy_select.core.fork import starts_anew_in_child

Key = tuple[str, str, bytes, bytes]  # bundle digest, side of the instruction's cut, the two texts' digests


class Known(NamedTuple):
    """What is kept of a scored pair."""

    score: float
    instruction_cut: int
    response_cut: int


class CacheInfo(NamedTuple):
    """Counters of a `ScoreCache`, in pairs.

    Attributes:
        hits: Pairs that were asked for and known.
        misses: Pairs that were asked for and not known.
        evictions: Pairs that were forgotten to make room.
        pairs: Pairs that are known now.
        max_pairs: Pairs that it keeps at most.
    """

    hits: int
    misses: int
    evictions: int
    pairs: int
    max_pairs: int


@made_again
class ScoreCache:
    """The most recently used scores, in memory. Safe to share between threads and scorers.

    It holds 128-bit digests of the texts, not the texts: about 0.4 kB a pair, however long they are.

    Args:
        max_pairs: How many pairs it keeps.

    Raises:
        InputError: `max_pairs` is no whole number of at least 1.
    """

    def __init__(self, max_pairs: int = 20_000) -> None:
        if not isinstance(max_pairs, int) or max_pairs < 1:
            raise InputError(f"max_pairs must be at least 1, got {max_pairs!r}; to have no cache pass cache=False")
        self._max_pairs = max_pairs
        self._known: OrderedDict[Key, Known] = OrderedDict()
        self._hits = self._misses = self._evictions = 0
        self.start_anew()
        starts_anew_in_child(self)

    def start_anew(self) -> None:
        """Also in a forked child, where the thread that held the lock does not exist."""
        self._lock = threading.Lock()

    def info(self) -> CacheInfo:
        """How often a pair was found, was not, and had to make room.

        Returns:
            The counters, since the cache was made.
        """
        with self._lock:
            return CacheInfo(self._hits, self._misses, self._evictions, len(self._known), self._max_pairs)

    def clear(self) -> None:
        """Forget all scores; the counters go on."""
        with self._lock:
            self._known.clear()

    def find(self, keys: Iterable[Key]) -> dict[Key, Known]:
        """Those of the keys that are known. Each becomes the most recently used one, and counts as a hit or a miss.

        Args:
            keys: (the bundle's digest, the side of the instruction's cut, the digests of instruction and response).

        Returns:
            What is known of them, by key.
        """
        found = {}
        with self._lock:
            for key in keys:
                if (known := self._known.get(key)) is None:
                    self._misses += 1
                else:
                    self._hits += 1
                    self._known.move_to_end(key)
                    found[key] = known
        return found

    def keep(self, scored: Mapping[Key, Known]) -> None:
        """Remember scores, and forget the least recently used beyond the bound.

        Args:
            scored: Scores, and tokens cut of either text, by key as in `find`.
        """
        with self._lock:
            self._known.update(scored)
            while len(self._known) > self._max_pairs:
                self._known.popitem(last=False)
                self._evictions += 1


def text_digest(text: str) -> bytes:
    """128 bits of a text, for a key."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

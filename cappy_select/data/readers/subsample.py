"""At most so many of a stream, drawn by seed without holding the stream in memory."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

from cappy_select.data.formats import Problems
from cappy_select.data.instances import Instance

Read = Callable[[Problems], Iterator[tuple[str, Instance]]]


class Draw:
    """Says of each of `total` things in turn whether it is taken: `limit` of them, each set equally likely.

    Selection sampling, Knuth, The Art of Computer Programming 2, 3.4.2, Algorithm S.
    """

    def __init__(self, total: int, limit: int, seed: int | str) -> None:
        self._left, self._wanted = total, min(limit, total)
        self._random = random.Random(seed)  # noqa: S311

    def takes_next(self) -> bool:
        """Whether the next one is taken."""
        taken = self._wanted > 0 and (self._wanted >= self._left or self._random.random() * self._left < self._wanted)
        self._left -= 1
        self._wanted -= taken
        return taken


def at_most(limit: int, read: Read, problems: Problems, *, seed: int = 0) -> Iterator[tuple[str, Instance]]:
    """Of each task `limit` instances at most, drawn by seed. Reads everything twice: the first time it counts."""
    totals = Counter(instance.task for _, instance in read(Problems()))
    draws = {task: Draw(total, limit, f"{seed}|{task}") for task, total in totals.items()}
    for where, instance in read(problems):
        if draws[instance.task].takes_next():
            yield where, instance

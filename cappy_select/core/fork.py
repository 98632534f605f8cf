"""What starts anew in a forked child: there, the threads that held a lock or a place in a queue do not exist."""

from __future__ import annotations

import os
import platform
from typing import Protocol
from weakref import WeakSet


class StartsAnew(Protocol):
    """An object with locks, threads, or places that others give back."""

    def start_anew(self) -> None:
        """In the child: make them anew, and wait for nothing."""


_known: WeakSet[StartsAnew] = WeakSet()


def starts_anew_in_child(thing: StartsAnew) -> None:
    """Have `start_anew` called in each child of this process, as long as the thing lives."""
    _known.add(thing)


def ask_for_platform() -> None:
    """Ask Python for the platform's name, which it remembers. It runs `uname` to find out, and OpenAI's client asks for
    it in its first call: a child forked in that moment would hold the other end of the pipe, and both would wait."""
    platform.platform()


def _after_fork() -> None:
    for thing in list(_known):
        thing.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

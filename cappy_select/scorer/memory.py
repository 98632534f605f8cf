"""A bound on the memory that models compute in: a graph that asks for more gets an error, and not the machine.

Shapes alone bound nothing: eight tokens, each combined with each, eight times over, are more than any memory holds.
So sessions allocate from an arena of this process with an upper limit; what does not fit raises at the node that
wants it.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

_SHARE = 0.5  # of the memory that this process may use
_LEAST, _MOST = 4 * 2**30, 32 * 2**30  # RoBERTa-large takes 2
_lock = threading.Lock()
_made_in: int | None = None  # the process that has the arena


def bound_memory(ort: Any, options: Any) -> None:
    """Let a session's options allocate within the bound. A forked child's can't: the arena's lock may be held there."""
    global _made_in
    with _lock:
        if _made_in is None:
            _made_in = os.getpid()
            where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
            with suppress(Exception):  # the process has made one of its own, with its own limit
                most = min(max(int(_SHARE * usable_memory()), _LEAST), _MOST)
                ort.create_and_register_allocator(where, ort.OrtArenaCfg({"max_mem": most}))
        if _made_in == os.getpid():
            options.add_session_config_entry("session.use_env_allocators", "1")


def usable_memory() -> int:
    """Bytes that this process may use: the machine's, or its cgroup's limit."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return 16 * 2**30
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            found = min(found, int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # none, or `max`
            continue
    return found


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

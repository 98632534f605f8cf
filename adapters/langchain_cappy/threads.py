"""Synchronous code of others beside an event loop: each call in a daemon thread of its own.

In a pool, a few that hang would stop all others, and the interpreter's exit.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(task: Callable[[], T]) -> T:
    """The task's result. When the caller is cancelled, the task runs on to its end, unheard."""
    async for result in iterate_in_thread(lambda: iter([task()])):
        return result
    raise AssertionError("the task has one result")


async def iterate_in_thread(make: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
    """The items of an iterator that is made and followed in the thread; who stops listening ends it at its next one."""
    loop = asyncio.get_running_loop()
    coming: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue()
    over = threading.Event()

    def say(found: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(coming.put_nowait, found)

    def run() -> None:
        try:
            for item in make():
                say((item,))
                if over.is_set():
                    return
            say(None)
        except BaseException as error:
            say(error)

    threading.Thread(target=run, name="cappy-runnable", daemon=True).start()
    try:
        while (found := await coming.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found[0]
    finally:
        over.set()

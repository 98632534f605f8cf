"""What belongs to an event loop, such as open connections: one for each, closed when its loop is over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from cappy_select.core import background
from cappy_select.core.fork import starts_anew_in_child

_T = TypeVar("_T")


class PerLoop(Generic[_T]):
    """One thing for each event loop.

    Args:
        make: Makes it, on its loop.
        close: Closes it, on its loop: when that ends (`asyncio.run` does this), or by `aclose`. Another one is made
            when it is needed again.
    """

    def __init__(self, make: Callable[[], _T], close: Callable[[_T], Awaitable[None]]) -> None:
        self._make, self._close = make, close
        self._kept: dict[asyncio.AbstractEventLoop, tuple[_T, AsyncGenerator[None, None]]] = {}
        self.start_anew()
        starts_anew_in_child(self)

    def start_anew(self) -> None:
        """Also in a forked child. What the parent has stays where it is: its connections are the parent's."""
        self._lock = threading.Lock()

    def get(self) -> _T:
        """That of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._kept:
                # They hold their loops: those of loops that are over without having been shut down go.
                self._kept = {known: kept for known, kept in self._kept.items() if not known.is_closed()}
                thing = self._make()
                keeper = self._keep(loop, thing)
                # A loop that is shut down closes the generators that were begun on it. This one begins without waiting.
                with suppress(StopIteration):
                    keeper.asend(None).send(None)
                self._kept[loop] = thing, keeper
            return self._kept[loop][0]

    async def aclose(self) -> None:
        """Close those of all loops that run, and wait for this loop's and the background loop's.

        Another loop may itself wait for the caller: there, closing is begun. That of a loop which does not run stays
        until the loop is shut down.
        """
        here = asyncio.get_running_loop()
        with self._lock:
            kept = {loop: keeper for loop, (_, keeper) in self._kept.items() if loop.is_running()}
        for loop, keeper in kept.items():
            if loop is here:
                await keeper.aclose()
                continue
            closing = asyncio.run_coroutine_threadsafe(_closed(keeper), loop)
            if background.owns(loop):
                await asyncio.wrap_future(closing)

    async def _keep(self, loop: asyncio.AbstractEventLoop, thing: _T) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with self._lock:
                self._kept.pop(loop, None)
            await self._close(thing)


async def _closed(keeper: AsyncGenerator[None, None]) -> None:
    await keeper.aclose()

"""The HTTP clients of our calls through LiteLLM: guarded, of one event loop, and closed with it.

LiteLLM takes a client with a call (`client=`), of a type that depends on the vendor and on the way that LiteLLM
chooses for the call; some vendors take none. But every client that it makes itself goes through its cache. So a
call of ours has a cache of its own, which guards what is put in, and other calls of the process have LiteLLM's.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from cappy_select.ask.providers.loops import PerLoop
from cappy_select.ask.providers.transport import guard

_CACHE = "in_memory_llm_clients_cache"  # LiteLLM's name for it

_of_this_call: ContextVar[_Clients | None] = ContextVar("_of_this_call", default=None)


@contextmanager
def our_clients(litellm: Any) -> Iterator[None]:
    """Within it, LiteLLM's clients are ours. To be entered on the event loop of the call."""
    cache = getattr(litellm, _CACHE)
    if not isinstance(cache, _Routed):  # two threads may do it at once: either one serves both
        setattr(litellm, _CACHE, _Routed(cache))
    token = _of_this_call.set(_per_loop.get())
    try:
        yield
    finally:
        _of_this_call.reset(token)


class _Routed:
    """LiteLLM's own cache, but in a call of ours the one of ours."""

    def __init__(self, theirs: Any) -> None:
        self.theirs = theirs

    def __getattr__(self, name: str) -> Any:
        ours = _of_this_call.get()
        return getattr(self.theirs if ours is None else ours, name)


class _Clients:
    """A cache as LiteLLM's, whose clients are guarded before their first call."""

    def __init__(self) -> None:
        from litellm.caching.llm_caching_handler import LLMClientCache

        self._cache = LLMClientCache()
        self._http: weakref.WeakSet[Any] = weakref.WeakSet()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def set_cache(self, key: str, value: Any, *args: Any, **options: Any) -> Any:
        self._guard(value)
        return self._cache.set_cache(key, value, *args, **options)

    async def async_set_cache(self, key: str, value: Any, *args: Any, **options: Any) -> Any:
        self._guard(value)
        return await self._cache.async_set_cache(key, value, *args, **options)

    def _guard(self, value: Any) -> None:
        import litellm

        # OpenAI's clients, and LiteLLM's handlers, have the HTTP client inside.
        http = getattr(value, "_client", None)
        if http is None or not hasattr(http, "event_hooks") or http in self._http:
            return
        if http in (litellm.aclient_session, litellm.client_session):
            return  # the user's own: how it goes about redirects is theirs to say
        if not hasattr(http, "aclose"):
            http.follow_redirects = False
            return
        guard(http)
        self._http.add(http)
        if hasattr(value, "event_hooks"):  # a handler makes another client when a connection fails
            value.event_hooks, value.follow_redirects = http.event_hooks, False

    async def aclose(self) -> None:
        for http in list(self._http):
            with suppress(Exception):  # one that can't be closed does not keep the others open
                await http.aclose()


_per_loop: PerLoop[_Clients] = PerLoop(_Clients, _Clients.aclose)


async def close_our_clients() -> None:
    """Close them, of all event loops; they are made anew when they are needed."""
    await _per_loop.aclose()

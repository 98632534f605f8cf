"""Threads of the online line: one event loop for synchronous callers, a few workers for what would block a loop.

A synchronous `select` must work where a loop already runs (Jupyter, a web handler), and the HTTP clients of
a provider must stay on the loop that made them: so all synchronous calls of a process share one loop, in a
daemon thread.

Tokenising has workers of its own: the loop's default executor also resolves host names, and work queued in
front of those would eat into the deadline of other selections. So has the user's code (policies, gates,
strategies): one that hangs must not stop selections that have none.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from cappy_select.core.daemon_pool import PATIENCE_S, DaemonPool
from cappy_select.core.time_limit import time_limit

_T = TypeVar("_T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_pools: dict[str, DaemonPool] = {}
_abandoned: list[asyncio.AbstractEventLoop] = []  # of the parent: to free one might close what the parent uses
_exiting = False


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine on the background loop and wait for it; an interrupt here cancels it there.

    Args:
        coroutine: What to run. It is closed without having run where this raises RuntimeError.

    Returns:
        What the coroutine returns; what it raises is raised here.

    Raises:
        RuntimeError: the caller runs on the background loop and would wait for itself, or the interpreter is exiting.
    """
    if is_own_loop():
        coroutine.close()
        raise RuntimeError(_WAITS_FOR_ITSELF)
    if _exiting:
        coroutine.close()
        raise RuntimeError(_EXITING)
    future = asyncio.run_coroutine_threadsafe(coroutine, _running_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def iterate(make: Callable[[], AsyncGenerator[_T, None]]) -> Iterator[_T]:
    """What an asynchronous generator gives, which runs on the background loop from the first item on.

    Who stops listening, or is interrupted, cancels it there and does not wait: at the exit nobody would answer.

    Args:
        make: Makes the generator; called on the background loop.

    Yields:
        The generator's items, in its order; what it raises is raised here, behind them.

    Raises:
        RuntimeError: the caller runs on the background loop, the interpreter is exiting, or the process was forked
            after the first item and this is the child.
    """
    if is_own_loop():
        raise RuntimeError(_WAITS_FOR_ITSELF)
    if _exiting:
        raise RuntimeError(_EXITING)
    process = os.getpid()
    coming: SimpleQueue[tuple[_T] | None] = SimpleQueue()

    async def follow() -> None:
        async with aclosing(make()) as items:
            async for item in items:
                coming.put((item,))

    future = asyncio.run_coroutine_threadsafe(follow(), _running_loop())
    future.add_done_callback(lambda _: coming.put(None))
    try:
        while (found := coming.get()) is not None:
            yield found[0]
            if os.getpid() != process:
                raise RuntimeError("a stream that was begun before a fork can only be followed by the parent")
        future.result()
    finally:
        future.cancel()


def is_own_loop() -> bool:
    """Whether the caller runs on the background loop: it must not wait for it, and what it opens stays there."""
    try:
        return asyncio.get_running_loop() is _loop
    except RuntimeError:
        return False


def owns(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop is the background loop, which waits for nobody.

    Args:
        loop: Any event loop.

    Returns:
        Whether it is that one.
    """
    return loop is _loop


_EXITING = "the interpreter is exiting: no answer would come any more"
_WAITS_FOR_ITSELF = "a synchronous call from inside a provider or policy would wait for itself: use the async one"


async def work(task: Callable[[], _T]) -> _T:
    """Run a task of ours off the event loop, also for threads that go on while the main one has ended.

    Args:
        task: Called in one of two threads that all such tasks of the process share.

    Returns:
        What the task returns; what it raises is raised here, a StopIteration as RuntimeError.
    """
    return await asyncio.wrap_future(_pool("cappy-work", at_a_time=2, patience_s=math.inf).submit(_finite(task)))


async def users_work(task: Callable[[], _T], seconds: float) -> _T:
    """Run a user's code, or what it was given by a model or client, off the event loop.

    What can be stopped (`core.time_limit`) stops when its time is up; what can't goes on in a thread that nobody waits
    for.

    Args:
        task: Called in one of 16 threads that all such tasks of the process share.
        seconds: How long it may take, the wait for a free thread included.

    Returns:
        What the task returns; what it raises is raised here, a StopIteration as RuntimeError.

    Raises:
        TimeoutError: it has not ended after so many seconds.
    """

    def limited() -> _T:
        with time_limit(until - time.perf_counter()):
            return task()

    until = time.perf_counter() + seconds
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(_pool("cappy-user", at_a_time=16).submit(_finite(limited)))


def _pool(name: str, at_a_time: int, patience_s: float = PATIENCE_S) -> DaemonPool:
    with _lock:
        if name not in _pools:
            _pools[name] = DaemonPool(name, 1000, at_a_time=at_a_time, patience_s=patience_s)
        return _pools[name]


def _finite(task: Callable[[], _T]) -> Callable[[], _T]:
    def finite() -> _T:
        try:
            return task()
        except StopIteration as error:  # a future can't carry it, and would never be done
            raise RuntimeError("StopIteration in a policy, gate or strategy") from error

    return finite


class _LastingExecutor(ThreadPoolExecutor):
    """The loop's default executor, which resolves host names. An ordinary one takes nothing more once the main thread
    has ended, while other threads still wait for their answers."""

    def __init__(self) -> None:
        super().__init__()  # makes no thread
        self._lasting = DaemonPool("cappy-names", 1000, at_a_time=8)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._lasting.submit(partial(fn, *args, **kwargs))


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _loop.set_default_executor(_LastingExecutor())
            _thread = threading.Thread(target=_serve, args=(_loop,), name="cappy-select", daemon=True)
            _thread.start()
            atexit.register(_close)
        return _loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped. What makes a loop give up is its task's result, and reaches the caller."""
    while True:
        try:
            return loop.run_forever()
        except (KeyboardInterrupt, SystemExit):
            continue


def _close() -> None:
    """At exit: end what is left on the loop (LiteLLM keeps a logging task there) before it is destroyed."""
    global _exiting
    _exiting = True
    loop = _loop
    if loop is None or not loop.is_running():
        return

    async def drain() -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1) if left else None
        loop.stop()

    asyncio.run_coroutine_threadsafe(drain(), loop)
    if _thread is not None:
        _thread.join(timeout=2)


def _forget() -> None:
    """A forked child has the loop object but not its thread: start anew there."""
    global _loop, _thread, _pools, _lock
    if _loop is not None:
        _abandoned.append(_loop)
    _loop, _thread, _pools, _lock = None, None, {}, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

"""Calls into native code (onnxruntime, tokenizers), which the end of the interpreter waits for.

A daemon thread is cut off when the interpreter ends; inside C++ or Rust that aborts the process. So each such call
is entered here. When the exit has come so far that all ordinary threads are done (`atexit`), no further call is let
in, those under way are asked to stop, and the exit waits until they have returned.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")

_changed = threading.Condition()
_under_way: dict[object, Callable[[], None]] = {}  # how each is asked to stop
_over = False


class Exiting(RuntimeError):
    """No call is made any more."""


def refuse_at_exit() -> None:
    """Once the interpreter ends: raises Exiting in the main thread, and holds any other, which is a daemon, for good.

    Holding is what the interpreter does with them a moment later; an error would be printed after the last word.
    """
    if _over and threading.current_thread() is threading.main_thread():
        raise Exiting("the interpreter is exiting: nothing can be scored any more")
    if _over:
        threading.Event().wait()


@contextmanager
def native_call(stop: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within it is one call; `stop` asks it to come back early. At the exit it is as `refuse_at_exit`.

    The main thread is not waited for: it is the one that exits. (An interrupt could keep it from taking its mark back.)
    """
    if threading.current_thread() is threading.main_thread():
        refuse_at_exit()
        yield
        return
    mark = object()
    with _changed:
        if not _over:
            _under_way[mark] = stop
    if mark not in _under_way:
        refuse_at_exit()
    try:
        yield
    finally:
        with _changed:
            _under_way.pop(mark, None)
            _changed.notify_all()
        refuse_at_exit()


def interruptible(call: Callable[[], _T], stop: Callable[[], None] = lambda: None) -> _T:
    """Make a call that takes long, so that Ctrl-C ends the wait for it: in the main thread, which gets the signals."""
    if threading.current_thread() is not threading.main_thread():
        with native_call(stop):
            return call()
    refuse_at_exit()
    made: Future[_T] = Future()

    def work() -> None:
        try:
            with native_call(stop):
                result = call()
        except BaseException as error:
            made.set_exception(error)
        else:
            made.set_result(result)

    threading.Thread(target=work, name="cappy-load", daemon=True).start()
    try:
        return made.result()
    except BaseException:
        if not made.done():
            stop()
        raise


def _end() -> None:
    global _over
    with _changed:
        _over = True
        stops = list(_under_way.values())
    for stop in stops:
        stop()
    with _changed:
        _changed.wait_for(lambda: not _under_way)


def _after_fork() -> None:
    """The threads whose calls are under way are the parent's."""
    global _changed
    _changed = threading.Condition()
    _under_way.clear()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

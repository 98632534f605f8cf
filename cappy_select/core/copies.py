"""Objects that are shared when they are copied, and made again from their arguments in another process.

A Selector, a provider and a scorer never change once they are made, are safe to share, and hold what can't be
copied: connections, locks, sessions, loaded weights.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type[Any])


def made_again(cls: _Class) -> _Class:
    """Class decorator: `copy` and `deepcopy` give the same object, `pickle` writes what it was made with.

    An argument that was not given is not written: what comes from the environment (a key) is read anew where the object
    is made again. Pickling raises TypeError, and names it, for an argument that can't be pickled. A subclass is pickled
    as Python does it, for it may take other arguments.

    Args:
        cls: The class; it is changed in place.

    Returns:
        The same class.
    """
    init: Callable[..., None] = cls.__init__

    @wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        args = tuple(map(_kept, args))
        kwargs = {name: _kept(value) for name, value in kwargs.items()}
        init(self, *args, **kwargs)
        self._made_with = args, kwargs

    def same(self: Any, _: Any = None) -> Any:
        return self

    def __reduce__(self: Any) -> tuple[Any, ...]:
        if type(self) is not cls:  # a subclass may take other arguments
            return object.__reduce_ex__(self, 2)  # type: ignore[return-value]
        args, kwargs = self._made_with
        for name, value in (*enumerate(args), *kwargs.items()):
            check_pickles(type(self).__name__, name, value)
        return _make, (type(self), args, kwargs)

    methods = {"__init__": __init__, "__copy__": same, "__deepcopy__": same, "__reduce__": __reduce__}
    for name, method in methods.items():
        setattr(cls, name, method)
    return cls


def check_pickles(what: str, name: str | int, value: Any) -> None:
    """Make sure that a part of an object can be pickled. The value itself may hold a key and is not shown.

    Args:
        what: The name of the object's class, for the message.
        name: The part's name among the arguments that the object was made with, or its position, from 0.
        value: The part.

    Raises:
        TypeError: it can't be pickled; the message names the part and its type.
    """
    try:
        pickle.dumps(value)
    except TypeError as error:
        if str(error).startswith(_CAN_NOT):  # of a part of the part: said already
            raise
        raise TypeError(_said(what, name, value, error)) from error
    except Exception as error:  # also AttributeError and RecursionError, by Python's version
        raise TypeError(_said(what, name, value, error)) from error


_CAN_NOT = "can't be pickled: "


def _said(what: str, name: str | int, value: Any, error: Exception) -> str:
    place = f"argument {name + 1}" if isinstance(name, int) else f"{name}="
    return (
        f"{_CAN_NOT}{what} was made with {place} of type {type(value).__name__}, which is tied to this process "
        f"({type(error).__name__}: {error}); make the {what} in the other process, or use functions of a module"
    )


def _kept(value: Any) -> Any:
    """An argument as it was: a list may be changed later, and an iterator gives its items once."""
    if isinstance(value, Iterator):
        return list(value)
    return value.copy() if isinstance(value, list | dict | set) else value


def _make(cls: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return cls(*args, **kwargs)

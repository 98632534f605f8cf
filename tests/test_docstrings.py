"""Every public name says what it takes, what it gives and what it raises, in the sections of Google's style."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import enum
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

FOLDERS = "core text bundle scorer ask ask.providers select data export train evaluate evaluate.bigbench adapt".split()
PACKAGES = ["cappy_select", *(f"cappy_select.{name}" for name in FOLDERS), "langchain_cappy", "litellm_cappy"]
NOUNS = {"A", "All", "An", "Each", "How", "The", "What", "Whether"}  # a first line that begins so names a value


def ours(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").startswith(("cappy_select", "langchain_cappy", "litellm_cappy"))


def is_documented_kind(thing: Any) -> bool:
    return ours(thing) and (inspect.isclass(thing) or inspect.isfunction(thing))


def function_of(member: Any) -> Any:
    """The function behind a property, a class or static method, a cache; anything else as it is."""
    for name in ("fget", "func", "__func__"):
        member = getattr(member, name, None) or member
    return inspect.unwrap(member)


def listed() -> dict[str, Any]:
    """All of every `__all__`, and the functions of a module in it. What several packages list is the last one's."""
    homes: dict[Any, str] = {}
    for package in map(import_module, PACKAGES):
        for name in getattr(package, "__all__", ()):
            where, thing = f"{package.__name__}.{name}", function_of(getattr(package, name))
            if is_documented_kind(thing):
                homes[thing] = where
            elif isinstance(thing, ModuleType):
                functions = {each: inner for inner, each in vars(thing).items() if inspect.isfunction(each)}
                own = {each: inner for each, inner in functions.items() if each.__module__ == thing.__name__}
                homes |= {each: f"{where}.{inner}" for each, inner in own.items() if not inner.startswith("_")}
    return {where: thing for thing, where in homes.items()}


LISTED = listed()
CLASSES = {where: thing for where, thing in LISTED.items() if inspect.isclass(thing)}
METHODS = {
    f"{where}.{name}": (cls, member)
    for where, cls in CLASSES.items()
    for name, member in vars(cls).items()
    if not name.startswith("_") and inspect.isfunction(function_of(member)) and ours(function_of(member))
}
PROTOCOLS = [cls for cls in CLASSES.values() if getattr(cls, "_is_protocol", False)]


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in {"self", "cls"} and name[0] != "_"]


def fields(cls: type) -> list[str]:
    """What a class is made of: a model's, dataclass's or tuple's fields, else its constructor's parameters."""
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if field.init]
    if hasattr(cls, "model_fields") or hasattr(cls, "_fields"):
        own = [name for each in cls.__mro__ if ours(each) for name in inspect.get_annotations(each)]
        return [name for name in own if name in getattr(cls, "model_fields", getattr(cls, "_fields", ()))]
    return next((parameters(made) for made in (cls.__init__, cls.__new__) if ours(made)), [])


def sections(*docs: str | None) -> dict[str, set[str]]:
    """The names that `Args:`, `Attributes:` and `Raises:` list; `Returns:` and `Yields:` are there or not."""
    found: dict[str, set[str]] = {}
    for doc in docs:
        now = ""
        for line in inspect.cleandoc(doc or "").splitlines():
            if heading := re.fullmatch(r"(\w+):", line):
                now = heading[1]
                found.setdefault(now, set())
            elif now and (entry := re.match(r" {4}([\w*., ]+): ", line)):
                found[now] |= {name.strip("* ") for name in entry[1].split(",")}
    return found


def raised(function: Any) -> Iterator[str]:
    """Classes of our errors and Python's that its own body raises, those of functions within it aside."""
    waiting: list[ast.AST] = list(ast.parse(textwrap.dedent(inspect.getsource(function))).body[0].body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            error = function.__globals__.get(node.exc.func.id) or getattr(builtins, node.exc.func.id, None)
            if inspect.isclass(error) and (ours(error) or error.__module__ == "builtins"):
                yield error.__name__
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def bases_with(cls: type, name: str, names: list[str]) -> Iterator[Any]:
    """The methods of our base classes and protocols that a method is an implementation of."""
    for base in [*cls.__mro__[1:], *PROTOCOLS]:
        method = function_of(vars(base).get(name))
        if ours(base) and base is not cls and inspect.isfunction(method) and parameters(method) == names:
            yield method


def check(function: Any, is_property: bool, *inherited: str | None) -> None:
    doc = function.__doc__ or next(iter(inherited), None)
    assert doc, "no docstring"
    found = sections(function.__doc__, *inherited)
    missing = set(parameters(function)) - found.get("Args", set())
    assert not missing, f"Args: lacks {sorted(missing)}"
    assert not (lacking := set(raised(function)) - found.get("Raises", set())), f"Raises: lacks {sorted(lacking)}"
    gives = str(inspect.signature(function).return_annotation) not in {"None", "NoReturn", str(inspect.Signature.empty)}
    told = "Returns" in found or "Yields" in found or (not parameters(function) and doc.split()[0] in NOUNS)
    assert told or is_property or not gives, "neither Returns: nor Yields:"


@pytest.mark.parametrize("where", [where for where in LISTED if where not in CLASSES])
def test_a_function(where):
    check(LISTED[where], False)


@pytest.mark.parametrize("where", METHODS)
def test_a_method(where):
    cls, member = METHODS[where]
    function = function_of(member)
    bases = bases_with(cls, where.rpartition(".")[2], parameters(function))
    check(function, isinstance(member, property | cached_property), *(base.__doc__ for base in bases))


@pytest.mark.parametrize("where", CLASSES)
def test_a_class(where):
    cls = CLASSES[where]
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("), "no docstring"
    found = sections(*(base.__doc__ for base in cls.__mro__ if ours(base)))
    documented = found.get("Args", set()) | found.get("Attributes", set())
    if not issubclass(cls, enum.Enum) and not getattr(cls, "_is_protocol", False):
        assert not (missing := set(fields(cls)) - documented), f"Args: or Attributes: lacks {sorted(missing)}"
    if inspect.isfunction(made := cls.__init__) and ours(made) and not dataclasses.is_dataclass(cls):
        assert not (lacking := set(raised(made)) - found.get("Raises", set())), f"Raises: lacks {sorted(lacking)}"

"""Every public name says what it takes, what it gives and what it raises, in the sections of Google's style."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import enum
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

FOLDERS = "core text bundle scorer ask ask.providers select data export train evaluate evaluate.bigbench adapt".split()
PACKAGES = ["cappy_select", *(f"cappy_select.{name}" for name in FOLDERS), "langchain_cappy", "litellm_cappy"]
NOUNS = {"A", "All", "An", "Each", "How", "The", "What", "Whether"}  # a first line that begins so names a value


def ours(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").startswith(("cappy_select", "langchain_cappy", "litellm_cappy"))


def function_of(member: Any) -> Any:
    """The function behind a property, a class or static method, a cache; anything else as it is."""
    for name in ("fget", "func", "__func__"):
        member = getattr(member, name, None) or member
    return inspect.unwrap(member)


def is_function(member: Any) -> bool:
    return inspect.isfunction(function_of(member)) and ours(function_of(member))


def public_names() -> tuple[dict[str, Any], dict[str, type]]:
    """The functions and the classes of every `__all__`, each where the last of the packages lists it."""
    homes: dict[Any, str] = {}
    for package in map(import_module, PACKAGES):
        for name in getattr(package, "__all__", ()):
            where, thing = f"{package.__name__}.{name}", getattr(package, name)
            if isinstance(thing, ModuleType):
                own = {inner: each for inner, each in vars(thing).items() if is_function(each) and inner[0] != "_"}
                homes |= {each: f"{where}.{inner}" for inner, each in own.items() if each.__module__ == thing.__name__}
            elif is_function(thing) or (inspect.isclass(thing) and ours(thing)):
                homes[thing] = where
    functions = {where: thing for thing, where in homes.items() if is_function(thing)}
    return functions, {where: thing for thing, where in homes.items() if inspect.isclass(thing)}


FUNCTIONS, CLASSES = public_names()
METHODS = {
    f"{where}.{name}": (cls, member)
    for where, cls in CLASSES.items()
    for name, member in vars(cls).items()
    if name[0] != "_" and is_function(member)
}
PROTOCOLS = [cls for cls in CLASSES.values() if getattr(cls, "_is_protocol", False)]


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in {"self", "cls"} and name[0] != "_"]


def fields(cls: type) -> list[str]:
    """What a class is made of: a model's, dataclass's or tuple's fields, else its constructor's parameters."""
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if field.init]
    if known := getattr(cls, "model_fields", getattr(cls, "_fields", ())):
        own = [name for each in cls.__mro__ if ours(each) for name in inspect.get_annotations(each)]
        return [name for name in own if name in known]
    return next((parameters(make) for make in (cls.__init__, cls.__new__) if ours(make)), [])


def sections(*docs: str | None) -> dict[str, set[str]]:
    """The names under `Args:`, `Attributes:` and `Raises:`; any other section is there or not."""
    found: dict[str, set[str]] = {}
    for doc in docs:
        heading = ""
        for line in inspect.cleandoc(doc or "").splitlines():
            if line.endswith(":") and line[:-1].isalpha():
                heading = line[:-1]
                found.setdefault(heading, set())
            elif heading and (entry := re.match(r" {4}([\w*., ]+):", line)):
                found[heading] |= {name.strip("* ") for name in entry[1].split(",")}
    return found


def raised(nodes: Iterable[ast.AST], scope: dict[str, Any], caught: frozenset[str] = frozenset()) -> Iterator[str]:
    """The errors of ours and of Python that code makes, but for those that it catches and those of functions in it."""
    for node in nodes:
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            error = scope.get(node.exc.func.id)
            if inspect.isclass(error) and caught.isdisjoint(base.__name__ for base in error.__mro__):
                yield error.__name__
        elif isinstance(node, ast.Try):
            named = [name.id for each in node.handlers for name in ast.walk(each.type) if isinstance(name, ast.Name)]
            yield from raised(node.body, scope, caught | {*named})
            yield from raised([*node.handlers, *node.orelse, *node.finalbody], scope, caught)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from raised(ast.iter_child_nodes(node), scope, caught)


def not_in_raises(function: Any, found: dict[str, set[str]]) -> list[str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    made = set(raised(definition.body, vars(builtins) | function.__globals__))
    return sorted(made - found.get("Raises", set()))


def check(function: Any, *inherited: Any, is_property: bool = False) -> None:
    docs = [each.__doc__ for each in (function, *inherited) if each.__doc__]
    assert docs, "no docstring"
    found, signature = sections(*docs), inspect.signature(function)
    assert sorted(set(parameters(function)) - found.get("Args", set())) == [], "not in Args:"
    assert not_in_raises(function, found) == []
    if signature.return_annotation not in (signature.empty, "None", None) and not is_property:
        names_a_value = not parameters(function) and docs[0].split()[0] in NOUNS
        assert names_a_value or {"Returns", "Yields"} & found.keys(), "neither Returns: nor Yields:"


@pytest.mark.parametrize("where", FUNCTIONS)
def test_a_function(where):
    check(function_of(FUNCTIONS[where]))


@pytest.mark.parametrize("where", METHODS)
def test_a_method(where):
    """One that implements a method of a base or a protocol of ours need not say again what that says."""
    (cls, member), name = METHODS[where], where.rpartition(".")[2]
    others = [function_of(vars(base)[name]) for base in (*cls.__mro__[1:], *PROTOCOLS) if name in vars(base)]
    function = function_of(member)
    bases = [each for each in others if is_function(each) and parameters(each) == parameters(function)]
    check(function, *bases, is_property=not callable(getattr(cls, name)))


@pytest.mark.parametrize("where", CLASSES)
def test_a_class(where):
    cls, own_words = CLASSES[where], f"{CLASSES[where].__name__}("  # how a dataclass's own docstring begins
    assert not (cls.__doc__ or own_words).startswith(own_words), "no docstring"
    makers = [function_of(make) for make in (cls.__init__, cls.__new__) if ours(make) and is_function(make)]
    found = sections(*(each.__doc__ for each in (*cls.__mro__, *makers) if ours(each)))
    if not issubclass(cls, enum.Enum) and cls not in PROTOCOLS:
        assert sorted(set(fields(cls)) - found.get("Args", set()) - found.get("Attributes", set())) == [], (
            "not in Args:"
        )
    if makers and not dataclasses.is_dataclass(cls) and cls not in PROTOCOLS:
        assert not_in_raises(makers[0], found) == []

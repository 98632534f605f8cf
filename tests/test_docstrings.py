"""Every public name says what it takes, what it gives and what it raises, in the sections of Google's style."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import pytest

FOLDERS = (
    "core text bundle scorer ask ask.providers select data export train "
    "evaluate evaluate.bigbench evaluate.zeroshot adapt"
).split()
PACKAGES = ["cappy_select", *(f"cappy_select.{name}" for name in FOLDERS), "langchain_cappy", "litellm_cappy"]
NOUNS = {"A", "All", "An", "Each", "How", "The", "What", "Whether"}  # a first line that begins so names a value


def ours(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).startswith(("cappy_select", "langchain_cappy", "litellm_cappy"))


def function_of(member: Any) -> FunctionType | None:
    """Our function behind a property, a class or static method, a cache; None where there is none."""
    for name in ("fget", "func", "__func__"):
        member = inspect.unwrap(getattr(member, name, None) or member)
    return member if isinstance(member, FunctionType) and ours(member) else None


def public_names() -> dict[str, tuple[Any, Any]]:
    """What every `__all__` lists, with the functions of its classes and modules: (what it is in, what it is)."""
    homes: dict[Any, str] = {}  # what several packages list is the last one's
    for package in map(import_module, PACKAGES):
        for name in getattr(package, "__all__", ()):
            thing = getattr(package, name)
            if function_of(thing) or isinstance(thing, ModuleType) or (inspect.isclass(thing) and ours(thing)):
                homes[thing] = f"{package.__name__}.{name}"
    names = {where: (None, thing) for thing, where in homes.items() if not isinstance(thing, ModuleType)}
    for thing, where in homes.items():
        module = getattr(thing, "__module__", None) or thing.__name__
        for name, member in vars(thing).items() if isinstance(thing, type | ModuleType) else ():
            if name[0] != "_" and (function := function_of(member)) and function.__module__ == module:
                names[f"{where}.{name}"] = thing, member
    return names


NAMES = public_names()
PROTOCOLS = [thing for _, thing in NAMES.values() if getattr(thing, "_is_protocol", False)]


def parameters(function: FunctionType) -> list[str]:
    return [name for name in inspect.signature(function).parameters if not re.match("self$|cls$|_", name)]


def fields(cls: type) -> list[str]:
    """What a class is made of: a model's, dataclass's or tuple's fields, else its constructor's parameters."""
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if field.init]
    if known := getattr(cls, "model_fields", getattr(cls, "_fields", ())):
        own = [name for each in cls.__mro__ if ours(each) for name in inspect.get_annotations(each)]
        return [name for name in own if name in known]
    return next((parameters(make) for make in map(function_of, (cls.__init__, cls.__new__)) if make), [])


def sections(docs: Iterable[str | None]) -> dict[str, set[str]]:
    """The names under `Args:`, `Attributes:` and `Raises:`; any other section is there or not."""
    found: dict[str, set[str]] = defaultdict(set)
    for doc in docs:
        heading = ""
        for line in inspect.cleandoc(doc or "").splitlines():
            if line.endswith(":") and line[:-1].isalpha():
                found[heading := line[:-1]] |= set()
            elif heading and (entry := re.match(r" {4}([\w*., ]+):", line)):
                found[heading] |= {name.strip("* ") for name in entry[1].split(",")}
    return found


def raised(nodes: Iterable[ast.AST], scope: dict[str, Any], caught: frozenset[str] = frozenset()) -> Iterator[str]:
    """The errors that code makes, but for those that it catches itself and those of functions in it."""
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


@pytest.mark.parametrize("where", NAMES)
def test_it_says_what_it_takes_gives_and_raises(where):
    owner, thing = NAMES[where]
    if inspect.isclass(thing):
        code = None if dataclasses.is_dataclass(thing) else function_of(thing.__init__)
        docs, takes, gives = [each.__doc__ for each in (*thing.__mro__, code) if ours(each)], fields(thing), None
        assert not (docs[0] or "").startswith(f"{thing.__name__}("), "only the docstring that dataclass makes"
    else:
        code = function_of(thing)
        # What a method of our base class or protocol says need not be said again.
        bases = [*owner.__mro__, *PROTOCOLS] if inspect.isclass(owner) else []
        others = [function_of(vars(base).get(where.rpartition(".")[2])) for base in bases]
        docs = [code.__doc__, *(each.__doc__ for each in others if each and parameters(each) == parameters(code))]
        takes, gives = parameters(code), inspect.signature(code).return_annotation
    found, first = sections(docs), docs[0] if inspect.isclass(thing) else next(filter(None, docs), None)
    assert first, "no docstring"
    assert [name for name in takes if name not in found["Args"] | found["Attributes"]] == [], "not in Args:"
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(code))).body if code else [ast.Module([])]
    errors = raised(definition.body, vars(builtins) | getattr(code, "__globals__", {}))
    assert [name for name in errors if name not in found["Raises"]] == [], "not in Raises:"
    if gives not in (None, "None", inspect.Signature.empty) and not isinstance(thing, property):
        assert {"Returns", "Yields"} & {*found} or (not takes and first.split()[0] in NOUNS), "no Returns:, no Yields:"

"""The folders of the package: what each may import, and what the outside may use of it."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import imports  # noqa: E402

LIGHT = ("core", "text", "bundle", "scorer", "ask", "select", "data", "adapt")


def test_every_folder_has_a_place_in_the_order_and_says_what_it_must_never_do():
    folders = {folder.name for folder in imports.PACKAGE.iterdir() if (folder / "__init__.py").is_file()}
    assert sorted(imports.rooms()) == sorted(folders)
    loose = {file.name for file in imports.PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert not loose, "a module belongs into a room"
    for room in folders:
        said = ast.get_docstring(ast.parse((imports.PACKAGE / room / "__init__.py").read_text())) or ""
        assert re.search(r"\bmust never\b", said.split("\n\n")[0]), room


def test_a_room_imports_only_rooms_above_it():
    order = imports.rooms()
    down = {edge for edge in imports.edges() if order.index(edge[1]) > order.index(edge[0])}
    assert not down, [pair for pair in imports.imports() if tuple(map(imports.room_of, pair)) in down]


def test_no_files_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for who, whom in imports.imports():
        if who != whom:
            graph.setdefault(who, set()).add(whom)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


def test_the_library_imports_no_adapter():
    for module, file in imports.modules().items():
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("langchain_cappy", "litellm_cappy")], module


def outside() -> list[tuple[Path, str]]:
    """Python of the adapters, recipes, examples and pages, with the file that each is in."""
    found = [
        (file, file.read_text()) for name in ("adapters", "recipes", "examples") for file in (ROOT / name).rglob("*.py")
    ]
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        found += [(page, block) for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    return found


def test_the_outside_uses_public_names_only():
    checked = 0
    for file, text in outside():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                inner = [alias.name for alias in node.names if alias.name.startswith("cappy_select.")]
                assert not inner, f"{file}: {inner}"
            if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "cappy_select":
                continue
            for alias in node.names:
                public = importlib.import_module(node.module).__all__
                assert alias.name in public, f"{file}: {node.module}.{alias.name} is not public"
                checked += 1
    assert checked > 50


@pytest.mark.parametrize("room", LIGHT)
def test_what_a_room_offers_is_there_and_sorted(room):
    module = importlib.import_module(f"cappy_select.{room}")
    assert all(hasattr(module, name) for name in module.__all__)
    assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


def test_the_picture_is_that_of_the_imports():
    drawn = (ROOT / "docs" / "imports.svg").read_text(encoding="utf-8")
    assert set(re.findall(r"<title>(\w+) imports (\w+):", drawn)) == set(imports.edges()), "run `make imports`"

"""Which room of the package imports which, as a picture: `make imports` writes docs/imports.svg.

tests/test_rooms.py reads the same edges, and fails where one points upwards or goes round in a circle.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cappy_select"
_ROW, _LEFT, _WIDTH = 44, 150, 620  # pixels


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports() -> Iterator[tuple[str, str]]:
    """Each import within the package, (who, whom) by module; lazy ones and those for type checkers too."""
    known = modules()
    for module, file in known.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((module, alias.name) for alias in node.names if alias.name in known)
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield module, whole if whole in known else node.module


def room_of(module: str) -> str:
    """The folder, or file, right below the package; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def edges() -> dict[tuple[str, str], int]:
    """How many imports lead from one room to another."""
    found: dict[tuple[str, str], int] = {}
    for who, whom in imports():
        pair = room_of(who), room_of(whom)
        if all(pair) and pair[0] != pair[1] and not pair[0].startswith("__"):
            found[pair] = found.get(pair, 0) + 1
    return found


def rooms() -> list[str]:
    """The rooms in the order in which docs/architecture.md has them: who stands below may import who stands above."""
    lines = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("### `").partition("/")[0] for line in lines if line.startswith("### `")]


def picture() -> str:
    """The rooms from top to bottom, an arc from each to those that it imports."""
    order, counted = rooms(), edges()
    height = _ROW * len(order) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="14">',
        "<style>text{fill:#222}path{fill:none;stroke:#3b6ea5;opacity:.55}rect{fill:#eef3f8;stroke:#3b6ea5}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}rect{fill:#1d2833}}</style>",
        '<marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0L8 4L0 8z" style="fill:#3b6ea5;opacity:1"/></marker>',
    ]
    middle = {room: 20 + _ROW * place + 14 for place, room in enumerate(order)}
    for (who, whom), count in sorted(counted.items()):
        start, end = middle[who], middle[whom]
        reach = _LEFT + 40 + abs(start - end) * 0.75
        width = 1 + min(count, 40) / 10
        parts.append(
            f'<path d="M{_LEFT} {start}C{reach} {start} {reach} {end} {_LEFT + 4} {end}" stroke-width="{width:.1f}" '
            f'marker-end="url(#end)"><title>{escape(f"{who} imports {whom}: {count}")}</title></path>'
        )
    for room, y in middle.items():
        parts.append(f'<rect x="20" y="{y - 15}" width="{_LEFT - 20}" height="30" rx="6"/>')
        parts.append(f'<text x="32" y="{y + 5}">{escape(room)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    target = ROOT / "docs" / "imports.svg"
    target.write_text(picture(), encoding="utf-8")
    print(f"{target.relative_to(ROOT)}: {len(rooms())} rooms, {sum(edges().values())} imports", file=sys.stderr)

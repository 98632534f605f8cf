"""A report of a measurement: JSON for machines, Markdown for a text, a PNG a picture, all of it in one HTML page.

FOLDER/report.json   what was measured
FOLDER/report.md     the tables
FOLDER/NAME.png      the pictures
FOLDER/report.html   tables and pictures in one file that needs no other
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cappy_select.errors import DataError

DATA, TEXT, PAGE = "report.json", "report.md", "report.html"

Cell = str | float | None
"""A text as it is; a number as a percentage; None is a dash."""


@dataclass(frozen=True)
class Table:
    """Rows under column names; the first column is text, the others stand to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    remark: str = ""


@dataclass(frozen=True)
class Picture:
    """`draw` gets an empty matplotlib figure of `size` inches."""

    name: str
    caption: str
    draw: Callable[[Any], None]
    size: tuple[float, float] = (8.0, 4.5)


@dataclass(frozen=True)
class Report:
    """What a page says, from top to bottom: the title, remarks a paragraph each, tables, pictures."""

    title: str
    remarks: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    data: BaseModel | dict[str, Any] = field(default_factory=dict)


def write_report(folder: str | Path, report: Report) -> bool:
    """Write a report; files of an older one are replaced. Returns whether there was matplotlib to draw the pictures.

    Raises DataError when the folder can't be written.
    """
    folder = Path(folder)
    drawn = _drawn(report.pictures)
    data = report.data.model_dump(mode="json") if isinstance(report.data, BaseModel) else report.data
    files: dict[str, bytes] = {
        **{f"{picture.name}.png": png for picture, png in drawn},
        TEXT: markdown(report, pictures=bool(drawn)).encode(),
        PAGE: _html(report, drawn).encode(),
        DATA: (json.dumps(data, ensure_ascii=False, indent=2) + "\n").encode(),  # the last: it means a whole report
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            partial = folder / f"{name}.partial"
            partial.write_bytes(content)
            partial.replace(folder / name)
    except OSError as error:
        raise DataError(f"{folder} can't be written: {error}") from error
    return len(drawn) == len(report.pictures)


def shown(cell: Cell) -> str:
    """A cell as text."""
    if cell is None:
        return "–"
    return cell if isinstance(cell, str) else f"{100 * cell:.1f} %"


def markdown(report: Report, *, pictures: bool = True) -> str:
    """The report as Markdown; pictures are linked to."""
    parts = [f"# {report.title}", *report.remarks]
    for table in report.tables:
        parts.append(f"## {table.title}")
        head = "| " + " | ".join(map(_plain, table.columns)) + " |"
        rule = "|" + "|".join(["---", *["---:"] * (len(table.columns) - 1)]) + "|"
        body = ["| " + " | ".join(_plain(shown(cell)) for cell in row) + " |" for row in table.rows]
        parts.append("\n".join([head, rule, *body]))
        if table.remark:
            parts.append(table.remark)
    if pictures:
        parts += [f"![{_plain(picture.caption)}]({picture.name}.png)" for picture in report.pictures]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _drawn(pictures: Sequence[Picture]) -> list[tuple[Picture, bytes]]:
    if not pictures:
        return []
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return []
    drawn = []
    for picture in pictures:
        figure = Figure(figsize=picture.size, layout="constrained")
        picture.draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=120)
        drawn.append((picture, file.getvalue()))
    return drawn


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
th { border-bottom: 2px solid #888; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } figure { margin: 2rem 0; } figcaption, .remark { color: #555; font-size: .9rem; }
"""


def _html(report: Report, drawn: Sequence[tuple[Picture, bytes]]) -> str:
    """One page without a script or a link outside: every text in it is escaped."""
    said = html.escape
    parts = [f"<h1>{said(report.title)}</h1>", *(f"<p>{said(remark)}</p>" for remark in report.remarks)]
    for table in report.tables:
        parts.append(f"<h2>{said(table.title)}</h2><table><thead><tr>")
        parts += [f"<th>{said(name)}</th>" for name in table.columns]
        parts.append("</tr></thead><tbody>")
        parts += ["<tr>" + "".join(f"<td>{said(shown(cell))}</td>" for cell in row) + "</tr>" for row in table.rows]
        parts.append("</tbody></table>")
        if table.remark:
            parts.append(f'<p class="remark">{said(table.remark)}</p>')
    for picture, png in drawn:
        source = base64.b64encode(png).decode()
        parts.append(
            f'<figure><img alt="{said(picture.caption)}" src="data:image/png;base64,{source}">'
            f"<figcaption>{said(picture.caption)}</figcaption></figure>"
        )
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{said(report.title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )

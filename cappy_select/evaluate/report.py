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
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cappy_select.core.errors import DataError, InputError
from cappy_select.core.files import write_whole
from cappy_select.core.terminal import harmless

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


def check_folder(folder: str | Path) -> None:
    """Raises InputError when no report could be written there; to be called before hours of work."""
    folder = Path(folder)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "can't be written to" if there.is_dir() else "is a file"
        raise InputError(f"no report can be written to {folder}: {there} {why}; give another folder")
    _check_ours(folder)


def write_report(folder: str | Path, report: Report) -> bool:
    """Write a report; an older one is replaced. Returns whether there was matplotlib to draw the pictures.

    A picture that can't be drawn is said in the report, which has the rest. Raises DataError when the folder can't be
    written, InputError when it holds files of these names that no report of ours wrote.
    """
    folder = Path(folder)
    _check_ours(folder)
    drawn, failed = _drawn(report.pictures)
    report = replace(report, remarks=[*report.remarks, *failed])
    data = report.data.model_dump(mode="json") if isinstance(report.data, BaseModel) else report.data
    files: dict[str, bytes] = {
        **{f"{picture.name}.png": png for picture, png in drawn},
        TEXT: markdown(replace(report, pictures=[picture for picture, _ in drawn])).encode(),
        PAGE: _html(report, drawn).encode(),
        DATA: (json.dumps(data, ensure_ascii=False, indent=2) + "\n").encode(),  # the last: it means a whole report
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        older = _pictures_in(folder / TEXT)
        (folder / DATA).unlink(missing_ok=True)  # a kill from here on leaves no older one beside new files
        for name in older - files.keys():
            (folder / name).unlink(missing_ok=True)
        for name, content in files.items():
            write_whole(folder / name, content)
    except OSError as error:
        raise DataError(f"{folder} can't be written: {error}") from error
    return len(drawn) + len(failed) == len(report.pictures)


def _check_ours(folder: Path) -> None:
    """A report has all three files, and its page our style: what else has these names is not replaced."""
    page, there = folder / PAGE, {name for name in (DATA, TEXT, PAGE) if (folder / name).is_file()}
    if PAGE in there:
        with page.open("rb") as file:
            ours = _STYLE[:60].encode() in file.read(100_000)
    else:
        ours = not there or (TEXT in there and page.exists()) or there == {TEXT, DATA}
    if not ours:
        raise InputError(
            f"{folder} holds {' and '.join(sorted(there))} that no report of ours wrote: they are not replaced; give "
            "another folder"
        )


def _pictures_in(text: Path) -> set[str]:
    """The pictures of an older report; others in the folder are not ours."""
    if not text.is_file():
        return set()
    return set(re.findall(r"^!\[.*\]\(([\w-]+\.png)\)$", text.read_text("utf-8", "replace"), re.MULTILINE))


def shown(cell: Cell) -> str:
    """A cell as text."""
    if cell is None:
        return "–"
    return cell if isinstance(cell, str) else f"{100 * cell:.1f} %"


def markdown(report: Report) -> str:
    """The report as Markdown; pictures are linked to."""
    parts = [f"# {_plain(report.title)}", *map(_plain, report.remarks)]
    for table in report.tables:
        parts.append(f"## {_plain(table.title)}")
        head = "| " + " | ".join(map(_plain, table.columns)) + " |"
        rule = "|" + "|".join(["---", *["---:"] * (len(table.columns) - 1)]) + "|"
        body = ["| " + " | ".join(_plain(shown(cell)) for cell in row) + " |" for row in table.rows]
        parts.append("\n".join([head, rule, *body]))
        if table.remark:
            parts.append(_plain(table.remark))
    parts += [f"![{_plain(picture.caption)}]({picture.name}.png)" for picture in report.pictures]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """On one line, and nothing in it is markup."""
    text = harmless(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"[\\|\[`*~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    text = re.sub(r"^(?:#(?=#*(?: |$))|[-+](?= |$)|[-=](?=[-=]*$)|>)", _as_entity, text)  # the mark of a block
    text = re.sub(r"^(\d+)([.)])(?= |$)", r"\1\\\2", text)
    # GitHub makes links of these without being asked.
    return re.sub(r"(?i)(?<=[a-z]):(?=//)|(?<=www)\.|(?<=\w)@(?=\w)|(?<=mailto):|(?<=xmpp):", _as_entity, text)


def _as_entity(found: re.Match[str]) -> str:
    return f"&#{ord(found.group())};"


def _said(text: str) -> str:
    """For HTML."""
    return html.escape(harmless(text))


def _drawn(pictures: Sequence[Picture]) -> tuple[list[tuple[Picture, bytes]], list[str]]:
    """The pictures that can be drawn, and what is to be said of the others: both empty without matplotlib."""
    drawn: list[tuple[Picture, bytes]] = []
    failed: list[str] = []
    if not pictures:
        return drawn, failed
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return drawn, failed
    for picture in pictures:
        figure, file = Figure(figsize=picture.size, layout="constrained"), io.BytesIO()
        # Names of files and tasks are no formulas, and may have letters that the font has not: those are boxes.
        with warnings.catch_warnings(), rc_context({"text.parse_math": False}):
            warnings.filterwarnings("ignore", "Glyph")
            try:
                picture.draw(figure)
                figure.savefig(file, format="png", dpi=120)
                drawn.append((picture, file.getvalue()))
            except Exception as error:  # of any kind: it must not cost what was measured
                failed.append(f"The picture {picture.name} can't be drawn: {type(error).__name__}: {error}")
    return drawn, failed


_POLICY = (  # the page needs nothing else, so nothing else may run or load
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
)
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
    said = _said
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
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_POLICY}<title>{said(report.title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )

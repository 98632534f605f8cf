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
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from cappy_select.core.errors import DataError, InputError
from cappy_select.core.files import write_whole
from cappy_select.core.terminal import harmless

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

DATA, TEXT, PAGE = "report.json", "report.md", "report.html"

_OURS = b"\nbody { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a;"  # in the page, since the first version

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
            ours = _OURS in file.read(100_000)
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
    return _written(TEXT, report=report)


def _html(report: Report, drawn: Sequence[tuple[Picture, bytes]]) -> str:
    """One page without a script or a link outside: every text in it is escaped."""
    pictures = [(picture, base64.b64encode(png).decode()) for picture, png in drawn]
    return _written(PAGE, report=report, pictures=pictures)


def _written(name: str, **values: Any) -> str:
    return _templates().get_template(f"{name}.j2").render(values)


@cache
def _templates() -> Environment:
    """Those of the package, in which an unknown name is an error and HTML is escaped by itself."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    templates = Environment(
        loader=PackageLoader("cappy_select.evaluate"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(harmless=_said, plain=_plain, shown=shown)
    return templates


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


def _said(text: str) -> Markup:
    """Harmless, and escaped for HTML with the entities that earlier versions wrote."""
    from markupsafe import Markup

    return Markup(html.escape(harmless(text)))  # noqa: S704


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

"""How verbs print: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from cappy_select.core.characters import escaped
from cappy_select.core.terminal import harmless, raw

if TYPE_CHECKING:
    from cappy_select.evaluate.report import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
ScorerSource = Annotated[
    str | None, typer.Option("--scorer", help="A bundle folder or hf://org/name; default: the embedded one.")
]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")]

# What verbs that ask LLMs have in common.
Samples = Annotated[int | None, typer.Option("--samples", "-n", help="Answers to ask of each model; default 4.")]
PlanName = Annotated[
    str | None, typer.Option("--plan", help="What to ask of each model: single, quick, paper, or a JSON file.")
]
AllowDowngrade = Annotated[
    bool, typer.Option("--allow-downgrade", help="Leave out what of the plan a model can't do, and say so.")
]
ExamplesFile = Annotated[
    str | None,
    typer.Option("--examples", help="In-context examples: JSONL of input and output, or a task file."),
]
Shots = Annotated[int, typer.Option("--shots", help="How many of them.")]
Temperature = Annotated[float | None, typer.Option("--temperature", help="Sampling temperature.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", help="Most tokens of an answer.")]
ApiBase = Annotated[str | None, typer.Option("--api-base", help="Address of an OpenAI-compatible server.")]


def new_app(**options: Any) -> typer.Typer:
    """The Typer of one verb's module."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **options)


def print_json(value: Any) -> None:
    """One JSON value, UTF-8, on standard output; what UTF-8 has no form for as an escape, and a NaN as null."""
    indent = 2 if sys.stdout.isatty() else None
    try:
        text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    except ValueError:  # JSON has no NaN
        text = json.dumps(_without_nan(value), ensure_ascii=False, indent=indent)
    print(escaped(text))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return json_number(value) if isinstance(value, float) else value


def json_number(value: float) -> float | None:
    """A score for JSON, which has no NaN."""
    return value if math.isfinite(value) else None


def note(message: str) -> None:
    """A remark that is not part of the result."""
    print("cappy: " + "\n  ".join(message.split("\n")), file=sys.stderr)  # no line of a message looks like ours


def one_line(text: str, width: int = 120) -> str:
    """A text on one line, for people; `--json` has it whole."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    to_stderr: bool = False,
) -> None:
    """A table; the columns whose numbers are in `right` are aligned right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for number, name in enumerate(columns):
        table.add_column(Text(harmless(name)), justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(harmless(cell)) for cell in row))  # Text: an answer's [brackets] are no markup
    # Piped output is not cut to a terminal's width.
    stream = raw(sys.stderr if to_stderr else sys.stdout)
    console = Console(file=stream, width=None if stream.isatty() else 140)
    if title:
        console.print(Text(harmless(title), style="bold"))
    console.print(table)


def print_report_table(table: Table, title: str | None = None) -> None:
    """A report's table, under its own title or another."""
    from cappy_select.evaluate.report import shown

    rows = [[shown(cell) for cell in row] for row in table.rows]
    print_table(table.title if title is None else title, table.columns, rows, right=range(1, len(table.columns)))


class Advance(Protocol):
    """Moves a progress bar: by `done`, of `total` when it is known; `detail` stands beside it."""

    def __call__(self, done: int, total: int | None = None, detail: str = "") -> None: ...


@contextmanager
def progress(label: str, *, shown: bool = True) -> Iterator[Advance]:
    """A bar on standard error with rate and ETA; silent unless on a terminal."""
    if not shown or not sys.stderr.isatty():
        yield lambda done, total=None, detail="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=Console(file=raw(sys.stderr)), transient=True) as bar:
        task = bar.add_task(harmless(label), total=None, detail="")

        def advance(done: int, total: int | None = None, detail: str = "") -> None:
            bar.update(task, advance=done, total=total, detail=harmless(detail))

        yield advance


@contextmanager
def bars(*, shown: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each of several stages, one after another: called with (stage, how much more of it, of how much)."""
    with ExitStack() as stack:
        now: list[str] = []
        advance: list[Advance] = []

        def told(stage: str, done: int, total: int) -> None:
            if now != [stage]:
                stack.close()
                now[:] = [stage]
                advance[:] = [stack.enter_context(progress(stage, shown=shown))]
            advance[0](done, total)

        yield told


def note_problems(
    listed: Sequence[tuple[str, str]], count: int, *, shown: int = 10, hint: str = " (--strict stops at the first)"
) -> None:
    """What was left out of the input: the first places, and how many more."""
    if not count:
        return
    note(f"{count} row{'' if count == 1 else 's'} left out{hint}:")
    for where, message in listed[:shown]:
        print(f"  {one_line(where)}: {one_line(message, 160)}", file=sys.stderr)
    if count > shown:
        print(f"  and {count - shown} more", file=sys.stderr)


def note_report(folder: str, whole: bool) -> None:
    """Where a report lies, and whether its pictures could not be drawn."""
    note(f"report: {Path(folder) / 'report.html'}")
    if not whole:
        note("without matplotlib it has no pictures: pip install 'cappy-select[data]'")

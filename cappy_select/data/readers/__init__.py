"""Readers: whatever tasks are kept in, they come out as instances.

Each is called with a source (a file, a folder or a table), the `Problems` that get what can't be read, and
options of its own; it yields (place, instance) as it reads. In memory is a row, or a whole JSON task file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from cappy_select.core.errors import InputError
from cappy_select.data.formats import Problems, Record, read_json
from cappy_select.data.instances import Instance
from cappy_select.data.readers import bigbench, chats, natural_instructions
from cappy_select.data.readers.bigbench import read_bigbench
from cappy_select.data.readers.chats import read_chats
from cappy_select.data.readers.natural_instructions import read_natural_instructions
from cappy_select.data.readers.prompt_templates import FILE_NAME
from cappy_select.data.readers.promptsource import read_promptsource
from cappy_select.data.readers.tables import Source, Table, as_table, read_rows, row_files

Format = Literal["instances", "promptsource", "natural_instructions", "bigbench", "chats"]
Reader = Callable[..., Iterator[tuple[str, Instance]]]

FORMATS: tuple[Format, ...] = get_args(Format)
READERS: Mapping[Format, Reader] = {
    "instances": read_rows,
    "promptsource": read_promptsource,
    "natural_instructions": read_natural_instructions,
    "bigbench": read_bigbench,
    "chats": read_chats,
}


def sniff(source: Source) -> Format:
    """The format of a file, a folder or a table, from what is in it.

    Rows of plain data look alike with and without templates: `promptsource` is never guessed.
    Raises InputError when it is none of them, or can't be read.
    """
    if isinstance(source, Table):
        return _of_row(source)
    path = Path(source)
    if path.is_dir():
        if next(path.rglob(bigbench.TASK_FILE), None) is not None:
            return "bigbench"
        if next(path.rglob(FILE_NAME), None) is not None:
            raise InputError(f"{path} holds templates; the data they apply to is read, with these as --templates")
        return sniff(row_files(path)[0])
    if path.name.lower().removesuffix(".gz").endswith(".json"):
        value = read_json(path)
        if natural_instructions.is_task(value):
            return "natural_instructions"
        if bigbench.is_task(value):
            return "bigbench"
    return _of_row(as_table(path))


def _of_row(table: Table) -> Format:
    row = next(table.rows(Problems()), None)
    if row is None:
        return "instances"  # its reader says that there is none
    values: Record = row.values
    kinds: dict[Format, Callable[[Record], Any]] = {
        "chats": chats.is_row,
        "bigbench": bigbench.is_row,
        "instances": lambda values: "instruction" in values,
    }
    for name, holds in kinds.items():
        if holds(values):
            return name
    raise InputError(
        f"{row.where} has the fields {', '.join(values)}: which format is this? One of {', '.join(FORMATS)} "
        "(--format), with templates for `promptsource`, with names for `instances` (--field instruction=...)"
    )

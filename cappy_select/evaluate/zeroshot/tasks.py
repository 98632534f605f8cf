"""The questions: instances with choices from files, or the paper's eleven tasks; which of them can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cappy_select.core.errors import DataError, InputError
from cappy_select.data.formats import Problems
from cappy_select.data.instances import Instance, read_instances
from cappy_select.data.readers.prompt_templates import FILE_NAME, load_templates
from cappy_select.data.readers.promptsource import read_promptsource
from cappy_select.data.sources import ZEROSHOT, HubData, load_hub

LEFT_OUT = "not so many choices, or none of them, or each, a reference"


def read_files(paths: Sequence[str | Path]) -> Iterator[Instance]:
    """The instances of files (`read_instances`).

    Args:
        paths: The files.

    Yields:
        Their instances, in order.

    Raises:
        InputError: a file can't be read, or a row of it is no instance.
    """
    for path in paths:
        for _, row in read_instances(path, Problems(strict=True)):
            yield row


def read_paper_tasks(templates: str | Path, problems: Problems, *, copies: Path | None = None) -> Iterator[Instance]:
    """The paper's eleven tasks from the hub under PromptSource's templates, those of the original task alone.

    Args:
        templates: PromptSource's folder `templates`.
        problems: Gets the tasks that don't load, and rows that can't be rendered.
        copies: See `load_hub`.

    Yields:
        Instances with `choices`.

    Raises:
        DataError: the hub can't be reached.
        InputError: no task can be read.
        MissingExtra: there is no `datasets`.
    """
    unreachable: list[HubData] = []
    found = False
    for name, data in ZEROSHOT.items():
        try:
            rendered_by = load_templates(Path(templates) / str(data.templates) / FILE_NAME)
        except InputError as error:
            problems.report(str(data), str(error))
            continue
        table = load_hub(data, problems, copies=copies, unreachable=unreachable)
        if unreachable:
            raise DataError(f"the hub can't be reached ({problems.listed[-1][1]}): give files of instances instead")
        if table is not None:
            for _, row in read_promptsource(table, problems, templates=rendered_by, turned_around=False, task=name):
                found = True
                yield row
    if not found:
        raise InputError(f"none of the paper's tasks can be read; the first: {': '.join(problems.listed[0])}")


def usable(instances: Iterable[Instance], choices: tuple[int, int], limit: int | None) -> tuple[list[Instance], int]:
    """The rows that a pick can be right or wrong in.

    Args:
        instances: With `choices`.
        choices: Rows with so many choices only, from and to.
        limit: Only the first rows of each task.

    Returns:
        The rows, and how many others were left out.

    Raises:
        InputError: there is none.
    """
    rows, left_out, taken = [], 0, Counter[str]()
    for row in instances:
        marks = rightness(row)
        if not choices[0] <= len(marks) <= choices[1] or all(marks) or not any(marks):
            left_out += 1
        elif limit is None or taken[row.task] < limit:
            taken[row.task] += 1
            rows.append(row)
    if not rows:
        raise InputError(f"no row has {choices[0]} to {choices[1]} choices, one a reference")
    return rows, left_out


def rightness(row: Instance) -> list[bool]:
    """Whether each choice of a row is right: a reference is written alike."""
    references = {text.strip() for text in row.references}
    return [choice.strip() in references for choice in row.choices or ()]

"""Instances: one thing to answer, with what is known about right and wrong answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cappy_select.core.characters import is_blank, without_halves
from cappy_select.core.errors import InputError, validation_message
from cappy_select.data.formats import Problems, Record, read_records


class Instance(BaseModel):
    """One instruction of one task, with what is known about right and wrong answers.

    Attributes:
        id: Its name within the task.
        task: The task's name.
        instruction: What a model is asked; not blank.
        references: Right answers; empty when none is known.
        choices: All the answers that were offered, for classification; None for generation.
        negatives: Answers that are known to be wrong.
        template: The name of the template that the instruction was made with.
        split: Where its data set has it, such as `train`.
        group: Joins the instances made of one row (by its templates), so that none of them is trained on while another
            validates.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    id: str
    task: str
    instruction: str = Field(pattern=r"\S")
    references: tuple[str, ...]
    choices: tuple[str, ...] | None = None
    negatives: tuple[str, ...] = ()
    template: str | None = None
    split: str | None = None
    group: str | None = None


FIELDS = tuple(Instance.model_fields)
_MANY = ("references", "choices", "negatives")


def named_fields(pairs: Iterable[str]) -> dict[str, str]:
    """`OURS=THEIRS` texts as the `fields` of `read_instances`. Raises InputError."""
    fields = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if not theirs or ours not in FIELDS:
            raise InputError(f"expected OURS=THEIRS, where OURS is one of {', '.join(FIELDS)}; got {pair!r}")
        fields[ours] = theirs
    return fields


def read_instances(
    path: str | Path, problems: Problems, *, fields: Mapping[str, str] | None = None, task: str | None = None
) -> Iterator[tuple[str, Instance]]:
    """(place, instance) of a JSONL, JSON, CSV, TSV or Parquet file, one by one.

    A row without `id` gets `task#line`. Where several answers can stand, a single text is one.

    Args:
        path: The file; which kind it is shows in its name, and the text ones may be gzipped.
        problems: Gets the rows that are no instances, by `file:line`.
        fields: Where the file has other names than ours: `{"instruction": "question", "references": "answer"}`.
        task: For rows without one; default: the file's name.

    Yields:
        (`file:line`, instance) for each row that is one.

    Raises:
        InputError: the file itself can't be read; with strict `problems` also the first row that is no instance.
        MissingExtra: it is Parquet, and pyarrow is not installed.
    """
    for where, row in read_records(path, problems):
        instance = instance_of(row, where, problems, fields=fields, task=task or stem_of(path))
        if instance is not None:
            yield where, instance


def stem_of(path: str | Path) -> str:
    """The task of a file's rows that name none."""
    return Path(path).name.split(".")[0]


def instance_of(
    row: Record, where: str, problems: Problems, *, fields: Mapping[str, str] | None, task: str
) -> Instance | None:
    """A row of a file as an instance, with a task and an id if it has none; None, and a problem, when it is none."""
    given = our_fields(row, fields or {})
    for name, default in (("task", task), ("id", f"{given.get('task') or task}#{where.rpartition(':')[2]}")):
        if given.get(name) is None:
            given[name] = default
    return as_instance(given, where, problems)


def our_fields(row: Record, fields: Mapping[str, str]) -> Record:
    """What of a row an instance has: under the name that `fields` gives it, else under ours."""
    named = ((name, fields.get(name, name)) for name in FIELDS)
    return {name: row.get(theirs, row.get(name)) for name, theirs in named if theirs in row or name in row}


def as_instance(given: Record, where: str, problems: Problems) -> Instance | None:
    """The row as an instance; None, and a problem, when it is none."""
    for name in _MANY:
        if isinstance(text := given.get(name), str):
            given[name] = (text,)
        if isinstance(texts := given.get(name), list | tuple):  # an empty cell, or text, is no answer
            given[name] = tuple(text for text in texts if not isinstance(text, str) or not _is_empty(text))
    if given.get("choices") == ():
        given["choices"] = None
    if type(given.get("id")) is int:
        given["id"] = str(given["id"])
    if given.get("negatives", ()) is None:
        del given["negatives"]
    try:
        instance = Instance.model_validate(given)
        "".join(_texts(instance)).encode()
        return instance
    except ValidationError as error:
        problems.report(where, _explained(error))
    except UnicodeEncodeError as error:
        problems.report(where, f"no UTF-8 text: it has a lone surrogate, \\u{ord(error.object[error.start]):04x}")
    return None


def _is_empty(text: str) -> bool:
    """Whether nobody would see anything of it; half a character, which no file can hold, is told apart from that."""
    return is_blank(text) and without_halves(text) == text


def _texts(instance: Instance) -> Iterator[str]:
    yield from (instance.id, instance.task, *instance.references, *(instance.choices or ()), *instance.negatives)
    yield from (instance.instruction, instance.template or "", instance.split or "", instance.group or "")


def _explained(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    if first["type"] == "missing":
        return f"no {first['loc'][0]!r}; an instance has {', '.join(FIELDS[:4])} (others may be named with --field)"
    if first["type"] == "string_pattern_mismatch":
        return "the instruction is blank"
    return validation_message(error)

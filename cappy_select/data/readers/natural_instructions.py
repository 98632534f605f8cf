"""Natural Instructions and Super-NaturalInstructions: a task a JSON file.

Mishra et al. 2022, "Cross-Task Generalization via Natural Language Crowdsourcing Instructions"; Wang et al. 2022,
"Super-NaturalInstructions". The best encoding on average is the definition and two positive examples; negative
examples in the prompt hurt, but are known wrong answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cappy_select.ask.in_context import Example, natural_instructions
from cappy_select.core.errors import InputError, validation_message
from cappy_select.data.formats import Problems, Record, read_json
from cappy_select.data.instances import Instance, as_instance
from cappy_select.data.readers.tables import Source, Table, bare_name, row_files

_NONE = ("-", "")  # how the files say that there is none


def read_natural_instructions(source: Source, problems: Problems, *, shots: int = 2) -> Iterator[tuple[str, Instance]]:
    """(place, instance) of a task file, or of each task file in a folder.

    Args:
        source: The JSON file, or the folder.
        problems: Gets the instances that are none, by file and number, and files that are no task.
        shots: Positive examples before the input; one that asks the same input is never among them.

    The task is the file's name. A negative example is an instance without references, its output among the
    `negatives`. Raises InputError when the file can't be read or is no task.
    """
    if isinstance(source, Table):
        raise InputError(f"a Natural Instructions task is a JSON file; {source.name} is a table")
    path = Path(source)
    if not path.is_dir():
        yield from _read(path, problems, shots)
        return
    for file in row_files(path):
        try:
            yield from _read(file, problems, shots)
        except InputError as error:
            problems.report(str(file), str(error))


def is_task(value: Any) -> bool:
    """Whether this JSON value is a task."""
    return isinstance(value, dict) and "Definition" in value and "Instances" in value


def _read(path: Path, problems: Problems, shots: int) -> Iterator[tuple[str, Instance]]:
    task, name = read_json(path), bare_name(path)
    if not is_task(task):
        raise InputError(f"{path}: a Natural Instructions task has 'Definition' and 'Instances', got {task!r:.80}")
    definition = task["Definition"]
    definition = "\n".join(map(str, definition)) if isinstance(definition, list) else str(definition)
    positive = _examples(task, "Positive Examples", str(path), problems)
    instances = task["Instances"] if isinstance(task["Instances"], list) else []
    if not instances:
        problems.report(str(path), "the task has no instances")
    negative = _examples(task, "Negative Examples", str(path), problems)
    rows: list[tuple[str, Any]] = [(f"#{number}", row) for number, row in enumerate(instances, 1)]
    rows += [
        (f"#negative-{number}", {"input": example.input, "output": (), "negatives": (example.output,)})
        for number, example in enumerate(negative, 1)
    ]
    for place, row in rows:
        where = f"{path}:{place.removeprefix('#')}"
        given = _given(row, place, name, definition, positive, shots)
        if isinstance(given, str):
            problems.report(where, given)
            continue
        instance = as_instance(given, where, problems)
        if instance is not None:
            yield where, instance


def _given(row: Any, place: str, task: str, definition: str, positive: tuple[Example, ...], shots: int) -> Record | str:
    """The row as an instance's fields, or what is wrong with it."""
    if not isinstance(row, dict) or not isinstance(row.get("input"), str) or "output" not in row:
        return f"an instance has 'input' (a text) and 'output', got {row!r:.80}"
    if row["output"] in (None, "", []):
        return "no output"
    shown = [example for example in positive if example.input.strip() != row["input"].strip()]
    return {
        "id": row.get("id") or f"{task}|{place}",
        "task": task,
        "instruction": natural_instructions(definition, shown[:shots], row["input"]),
        "references": row["output"],
        "negatives": row.get("negatives", ()),
    }


def _examples(task: Record, name: str, where: str, problems: Problems) -> tuple[Example, ...]:
    """Positive or negative examples; the files of 2021 have them under `Examples`, with a `reason`."""
    older = task.get("Examples")
    found = task.get(name, older.get(name) if isinstance(older, dict) else None)
    if found is None or found in _NONE:
        return ()
    rows = [row for row in found if row not in _NONE] if isinstance(found, list) else found
    if isinstance(rows, list):
        rows = [_plain(row) for row in rows if not (isinstance(row, dict) and row.get("input") in _NONE)]
    if not isinstance(rows, list):
        problems.report(where, f"{name}: expected a list, got {rows!r:.80}")
        return ()
    examples = []
    for row in rows:
        try:
            examples.append(Example.model_validate(row))
        except ValidationError as error:
            problems.report(where, f"{name}: {validation_message(error)}")
    return tuple(examples)


def _plain(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    output = row.get("output")
    reason = row.get("explanation", row.get("reason"))
    return {
        "input": row.get("input"),
        "output": output[0] if isinstance(output, list) and len(output) == 1 else output,
        "explanation": None if reason in _NONE else reason,
    }

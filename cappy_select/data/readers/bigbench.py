"""BIG-bench: task folders with `task.json`, and the rows of the hub's `tasksource/bigbench`.

Srivastava et al. 2022, "Beyond the Imitation Game"; the JSON schema is in BIG-bench's docs/doc.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cappy_select.core.errors import InputError
from cappy_select.data.formats import Problems, Record, read_json
from cappy_select.data.instances import Instance, as_instance
from cappy_select.data.readers.tables import Row, Source, Table, as_table, bare_name, row_id

TASK_FILE = "task.json"
_COLLECTION = "benchmark_tasks"  # BIG-bench's folder of all tasks: no task's name


def read_bigbench(
    source: Source, problems: Problems, *, seed: int = 0, task: str | None = None
) -> Iterator[tuple[str, Instance]]:
    """(place, instance) of a task file, of all tasks in a folder, or of rows as `tasksource/bigbench` has them.

    Args:
        source: A `task.json`; a folder with one, or with folders of them (subtasks, called `task:subtask`); or
            a file or table of rows.
        problems: Gets the examples that are no instances, and tasks without JSON examples (programs).
        seed: Of the order in which choices are listed.
        task: For rows; default: the table's name.

    Of choices with scores, those with the highest are the references. Raises InputError when a file can't be read.
    """
    if isinstance(source, Table):
        yield from _rows(source, problems, task)
        return
    path = Path(source)
    if path.is_dir():
        yield from _folder(path, problems, seed)
    elif path.name.lower().removesuffix(".gz").endswith(".json"):
        value = read_json(path)
        if not is_task(value):
            raise InputError(f"{path}: a BIG-bench task has 'examples', got {value!r:.80}")
        folder = path.resolve().parent.name
        yield from _task(value, str(value.get("name") or folder), str(path), problems, seed)
    else:
        yield from _rows(as_table(path), problems, task)


def is_task(value: Any) -> bool:
    """Whether this JSON value is a task."""
    return isinstance(value, dict) and isinstance(value.get("examples"), list)


def is_row(values: Record) -> bool:
    """Whether this is a row of `tasksource/bigbench`."""
    return {"inputs", "targets", "multiple_choice_targets", "multiple_choice_scores"} <= values.keys()


def _folder(root: Path, problems: Problems, seed: int) -> Iterator[tuple[str, Instance]]:
    found = False
    for folder in [root, *sorted(path for path in root.rglob("*") if path.is_dir())]:
        file = folder / TASK_FILE
        has_subtasks = any(file != below for below in folder.rglob(TASK_FILE))
        if not file.is_file():
            if (folder / "task.py").is_file() and not has_subtasks:
                found = True
                problems.report(str(folder), "the task is a program (task.py), without JSON examples")
            continue
        found = True
        try:
            value = read_json(file)
        except InputError as error:
            problems.report(str(file), str(error))
            continue
        if is_task(value) and value["examples"]:
            yield from _task(value, _name(root, folder, value), str(file), problems, seed)
        elif not has_subtasks:
            problems.report(str(file), "the task has no JSON examples")
    if not found:
        problems.report(str(root), f"no {TASK_FILE} in this folder")


def _name(root: Path, folder: Path, task: Record) -> str:
    above = [root.resolve().name, *folder.relative_to(root).parts]
    own = above.pop()
    return ":".join([*(name for name in above if name != _COLLECTION), str(task.get("name") or own)])


def _task(task: Record, name: str, where: str, problems: Problems, seed: int) -> Iterator[tuple[str, Instance]]:
    for number, example in enumerate(task["examples"], 1):
        place = f"{where}:{number}"
        if not isinstance(example, dict) or not isinstance(example.get("input"), str):
            problems.report(place, f"an example has 'input' (a text), got {example!r:.80}")
            continue
        identity = f"{name}|#{number}"
        scores = example.get("target_scores")
        if scores is None:
            answers: Record = {"references": example.get("target")}
        elif isinstance(scores, dict) and scores and all(isinstance(score, int | float) for score in scores.values()):
            # As BIG-bench does: the first choice in the file is often the right one.
            choices = sorted(scores)
            random.Random(f"{seed}|{identity}").shuffle(choices)  # noqa: S311
            answers = _graded(choices, [scores[choice] for choice in choices])
        else:
            problems.report(place, f"'target_scores' holds a score for each choice, got {scores!r:.80}")
            continue
        answered = _answered(identity, name, _instruction(task, example["input"], answers), answers, place, problems)
        if answered is not None:
            yield place, answered


def _instruction(task: Record, asked: str, answers: Record) -> str:
    defaults = {
        "task_prefix": "",
        "example_input_prefix": "\nQ: ",
        "choice_prefix": "\n  choice: ",
        "example_output_prefix": "\nA: ",
    }
    given = {name: default if task.get(name) is None else str(task[name]) for name, default in defaults.items()}
    parts = [given["task_prefix"], given["example_input_prefix"], asked]
    if task.get("append_choices_to_input", True):
        parts += [given["choice_prefix"] + choice for choice in answers.get("choices") or ()]
    return "".join([*parts, given["example_output_prefix"]]).strip()


def _rows(table: Table, problems: Problems, task: str | None) -> Iterator[tuple[str, Instance]]:
    task = task or bare_name(Path(table.name))
    for row in table.rows(problems):
        instance = _row(row, task, table.split, problems)
        if instance is not None:
            yield row.where, instance


def _row(row: Row, task: str, split: str | None, problems: Problems) -> Instance | None:
    values = row.values
    if not isinstance(values.get("inputs"), str):
        problems.report(row.where, f"a row has 'inputs' (a text) and 'targets', got {values!r:.80}")
        return None
    choices, scores = values.get("multiple_choice_targets"), values.get("multiple_choice_scores")
    answers: Record = {"references": values.get("targets")}
    if choices:
        if not isinstance(scores, list) or len(scores) != len(choices):
            problems.report(row.where, f"{len(choices)} choices and not as many scores: {scores!r:.80}")
            return None
        answers = _graded(choices, scores)
    number = values["idx"] if isinstance(values.get("idx"), int) else row.number
    identity = row_id(task, row._replace(number=number))
    return _answered(identity, task, values["inputs"].strip(), answers, row.where, problems, split=split)


def _graded(choices: list[str], scores: list[float]) -> Record:
    best = max(scores)
    right = [choice for choice, score in zip(choices, scores, strict=True) if score == best]
    return {"choices": choices, "references": right if best > 0 else None}


def _answered(
    identity: str, task: str, instruction: str, answers: Record, where: str, problems: Problems, **more: Any
) -> Instance | None:
    if answers["references"] in (None, [], ""):
        problems.report(where, "no choice has a score above 0" if answers.get("choices") else "no target")
        return None
    return as_instance({"id": identity, "task": task, "instruction": instruction, **answers, **more}, where, problems)

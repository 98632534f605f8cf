"""Data sets under PromptSource's templates: every row once for each template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cappy_select.core.errors import InputError
from cappy_select.data.formats import Problems
from cappy_select.data.instances import Instance, as_instance
from cappy_select.data.readers.prompt_templates import Template, Templates, find_templates
from cappy_select.data.readers.rendering import TEXT_LENGTH, Renderer
from cappy_select.data.readers.subsample import Draw
from cappy_select.data.readers.tables import Row, Source, as_table, row_id

MAX_INSTANCES = 500_000  # of a data set, over all its templates: the cap of T0 and of Cappy's pretraining


def read_promptsource(
    source: Source,
    problems: Problems,
    *,
    templates: Templates | str | Path,
    max_instances: int = MAX_INSTANCES,
    seed: int = 0,
    turned_around: bool = True,
    cut: int | None = TEXT_LENGTH,
    task: str | None = None,
    left_out: Counter[str] | None = None,
) -> Iterator[tuple[str, Instance]]:
    """(place, instance) of every row under every template.

    Args:
        source: The data set: a file, a folder of files, or a table. CSV holds only texts: templates that look
            up `answer_choices[label]` leave all of its rows out; they need JSONL or Parquet.
        problems: Gets what can't be rendered, by template and row, and targets that are not among the choices.
        templates: Of the data set; or the file or folder they are in.
        max_instances: Row and template together, at most; drawn by seed when there are more. Those that
            templates leave out count too.
        seed: Of the draw, and of the templates' own choices.
        turned_around: Also templates for another task than the data set's (`original_task` is false).
        cut: Characters of a printed value; None: no limit.
        task: Default: the templates' `dataset/subset`.
        left_out: Counts, by `task|template`, the rows that a template leaves out, which is its right.

    Raises InputError when the templates or the source can't be read.
    """
    table = as_table(source)
    if not isinstance(templates, Templates):
        templates = find_templates(templates)
    task = task or templates.task
    renderers = _renderers(templates, problems, turned_around, cut)
    draw = Draw(table.count() * len(renderers), max_instances, f"{seed}|{task}") if renderers else None
    for row in table.rows(problems) if draw else ():
        for template, renderer in renderers:
            if not draw or not draw.takes_next():
                continue
            instance = _instance(row, template, renderer, task, table.split, seed, problems)
            if isinstance(instance, Instance):
                yield row.where, instance
            elif instance is None and left_out is not None:
                left_out[f"{task}|{template.name}"] += 1


def _renderers(
    templates: Templates, problems: Problems, turned_around: bool, cut: int | None
) -> list[tuple[Template, Renderer]]:
    renderers = []
    for template in templates.templates:
        if template.metadata.original_task is False and not turned_around:
            continue
        try:
            renderers.append((template, Renderer(template, cut=cut)))
        except InputError as error:
            problems.report(templates.task, str(error))
    return renderers


def _instance(
    row: Row, template: Template, renderer: Renderer, task: str, split: str | None, seed: int, problems: Problems
) -> Instance | bool | None:
    """The instance; None when the template leaves the row out; False when it is a problem."""
    base = row_id(task, row)
    name = f"{task}|{row.part}|{template.name}|#{row.number}"
    where = f"{row.where}, template {template.name!r}"
    try:
        rendered = renderer.render(row.values, f"{seed}|{name}")
    except InputError as error:
        problems.report(where, str(error))
        return False
    if rendered is None:
        return None
    stray = [target for target in rendered.targets if target not in (rendered.choices or rendered.targets)]
    if stray or rendered.choices == ():
        problems.report(
            where, f"the target {rendered.targets[0]!r:.80} is not among the choices {rendered.choices!r:.200}"
        )
        return False
    given = {
        "id": name,
        "task": task,
        "instruction": rendered.prompt,
        "references": rendered.targets,
        "choices": rendered.choices,
        "template": template.name,
        "split": split,
        "group": base,
    }
    return as_instance(given, where, problems) or False

"""`cappy data read` and `cappy data sources`: instances of tasks."""

from __future__ import annotations

import os
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from cappy_select.cli.output import Json, note, note_problems, print_json, print_table, progress
from cappy_select.core.errors import InputError
from cappy_select.data.formats import Problems
from cappy_select.data.instances import Instance, named_fields
from cappy_select.data.readers import FORMATS, READERS, Format, sniff
from cappy_select.data.readers.options import with_options
from cappy_select.data.readers.prompt_templates import find_templates
from cappy_select.data.readers.promptsource import MAX_INSTANCES
from cappy_select.data.readers.subsample import Read, at_most
from cappy_select.data.readers.tables import Source, Table, row_files
from cappy_select.data.sources import (
    BIGBENCH_45,
    PREFIX,
    T0_BASE,
    load_hub,
    parse_hub,
    read_bigbench45,
    read_t0,
)
from cappy_select.data.writing import check_output, write_instances

MIXTURES = ("t0", "bigbench45")


def read(
    sources: Annotated[
        list[str],
        typer.Argument(help=f"Files, folders, {PREFIX}org/name[/subset][@split], or {' or '.join(MIXTURES)}."),
    ],
    out: Annotated[str, typer.Option(help="Where the instances go: .jsonl, .jsonl.gz or .parquet.")],
    format: Annotated[  # noqa: A002 - it is the option's name
        str | None, typer.Option(help=f"What the sources are, where that can't be seen: {', '.join(FORMATS)}.")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(help="A field's name in rows of `instances`: OURS=THEIRS, as in references=answer; repeatable."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task's name, for rows without one.")] = None,
    templates: Annotated[
        str | None,
        typer.Option(help="PromptSource templates: a templates.yaml, or the folder that has one for each data set."),
    ] = None,
    original_only: Annotated[
        bool, typer.Option("--original-only", help="Leave out templates that turn the task around.")
    ] = False,
    options: Annotated[
        bool, typer.Option("--options", help="List the choices at the end of the instruction, as FLAN does.")
    ] = False,
    max_instances: Annotated[
        int | None,
        typer.Option(min=1, help=f"Of each task, drawn by seed; default none, {MAX_INSTANCES} with templates."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Positive examples before an input of Natural Instructions; default 2.")
    ] = None,
    copies: Annotated[
        str | None, typer.Option(help="A folder with copies of hub data sets, at org/name[/subset], used instead.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if there is one.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that can't be used.")] = False,
    json: Json = False,
) -> None:
    """Turn tasks of any usual format into instances, in one file.

    JSON: {"out", "instances", "tasks": {name: instances}, "skipped", "left_out_by_template", "repeated_ids"}.
    """
    check_output(out, overwrite=overwrite)
    if not sys.stderr.isatty():  # read when `datasets` is imported
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    problems = Problems(strict=strict)
    reading = _Reading(
        format=_format(format),
        fields=named_fields(field or ()),
        task=task,
        templates=templates,
        turned_around=not original_only,
        max_instances=max_instances,
        shots=shots,
        copies=None if copies is None else Path(copies),
        seed=seed,
    )
    seen = _Seen()
    with progress("instances") as advance:

        def counted() -> Iterator[Instance]:
            for source in sources:
                for _, instance in reading.of(source, problems):
                    seen.add(instance)
                    advance(1)
                    yield with_options(instance) if options else instance

        count = write_instances(counted(), out, overwrite=overwrite)
    note_problems(problems.listed, problems.count)
    for unused in reading.unused():
        note(unused)
    if not count:
        raise InputError(f"no instance in {', '.join(sources)}; nothing was written")
    left_out, repeated = reading.left_out.total(), seen.repeated()
    if left_out:
        name, most = reading.left_out.most_common(1)[0]
        note(f"{left_out} times a template left a row out, as it may; most often {name}: {most}")
    if repeated:
        note(f"{repeated} instances have the task and the id of another")
    if json:
        print_json(
            {
                "out": out,
                "instances": count,
                "tasks": seen.tasks,
                "skipped": problems.count,
                "left_out_by_template": reading.left_out,
                "repeated_ids": repeated,
            }
        )
        return
    rows = [(name, f"{number:,}") for name, number in seen.tasks.items()]
    print_table(f"{count:,} instances in {out}", ("task", "instances"), rows, right=(1,))


def sources(json: Json = False) -> None:
    """List the data sets of T0's training mixture and the 45 BIG-bench tasks, with their names on the hub.

    JSON: [{"mixture", "task", "hub", "subset", "split"}].
    """
    rows = [
        {
            "mixture": mixture,
            "task": data.templates or data.subset,
            "hub": data.name,
            "subset": data.subset,
            "split": data.split,
        }
        for mixture, listed in zip(MIXTURES, (T0_BASE, BIGBENCH_45), strict=True)
        for data in listed
    ]
    if json:
        print_json(rows)
        return
    columns = ("mixture", "task", "hub", "subset", "split")
    print_table("", columns, [[row[name] or "" for name in columns] for row in rows])


@dataclass
class _Seen:
    """Instances by task, and a hash of each id: eight bytes each, for millions of them."""

    tasks: Counter[str] = field(default_factory=Counter)
    _hashes: array[int] = field(default_factory=lambda: array("q"))

    def add(self, instance: Instance) -> None:
        self.tasks[instance.task] += 1
        self._hashes.append(hash((instance.task, instance.id)))

    def repeated(self) -> int:
        import numpy as np

        return len(self._hashes) - len(np.unique(np.frombuffer(self._hashes, np.int64)))


@dataclass
class _Reading:
    """How sources are read, and which of the options that are for one format were of use."""

    format: Format | None
    fields: dict[str, str]
    task: str | None
    templates: str | None
    turned_around: bool
    max_instances: int | None
    shots: int | None
    copies: Path | None
    seed: int
    left_out: Counter[str] = field(default_factory=Counter)
    _formats: set[Format] = field(default_factory=set)

    def of(self, source: str, problems: Problems) -> Iterator[tuple[str, Instance]]:
        """(place, instance) of a source as the command line names it. Raises InputError."""
        if Path(source).exists():
            yield from self._read(self._files(Path(source)), None, problems)
        elif source == "t0":
            if self.templates is None:
                raise InputError(
                    "t0 needs PromptSource's templates: clone https://github.com/bigscience-workshop/promptsource "
                    "and give --templates promptsource/promptsource/templates"
                )
            self._formats.add("promptsource")
            options = self._options("promptsource", None) | {"templates": self.templates, "task": None}
            yield from read_t0(problems=problems, copies=self.copies, **options)
        elif source == "bigbench45":
            self._formats.add("bigbench")
            yield from self._limited(partial(read_bigbench45, copies=self.copies), problems)
        elif source.startswith(PREFIX):
            data = parse_hub(source)
            table = load_hub(data, problems, copies=self.copies)
            if table is not None:
                name = data.templates or "/".join(filter(None, (data.name, data.subset)))
                yield from self._read([table], name, problems)
        else:
            raise InputError(f"no such file or folder: {source}; a data set of the hub is written {PREFIX}org/name")

    def unused(self) -> Iterator[str]:
        """Options that none of the sources had a use for, in words."""
        for option, given, formats in (
            ("--field", bool(self.fields), {"instances"}),
            ("--shots", self.shots is not None, {"natural_instructions"}),
            ("--templates", self.templates is not None, {"promptsource"}),
            ("--original-only", not self.turned_around, {"promptsource"}),
            ("--task", self.task is not None, {"instances", "chats", "promptsource"}),
        ):
            if given and self._formats and not formats & self._formats:
                yield f"{option} was of no use: it is for {', '.join(sorted(formats))}, and none of the sources is that"

    def _files(self, path: Path) -> list[Path]:
        """A folder that is one data set is read whole, others file by file."""
        if not path.is_dir() or self._format(path) in {"bigbench", "promptsource", "natural_instructions"}:
            return [path]
        return row_files(path)

    def _format(self, source: Source) -> Format:
        if self.format is not None:
            return self.format
        if self.templates is not None:
            return "promptsource"
        return "instances" if self.fields else sniff(source)

    def _read(
        self, sources: Sequence[Path | Table], name: str | None, problems: Problems
    ) -> Iterator[tuple[str, Instance]]:
        formats = [self._format(source) for source in sources]
        self._formats.update(formats)
        reads = [
            partial(READERS[format], source, **self._options(format, name))
            for source, format in zip(sources, formats, strict=True)  # noqa: A001
        ]

        def all_of(problems: Problems) -> Iterator[tuple[str, Instance]]:
            return chain.from_iterable(read(problems) for read in reads)

        # PromptSource's reader keeps to the limit itself: it need not render twice to count.
        yield from all_of(problems) if "promptsource" in formats else self._limited(all_of, problems)

    def _options(self, format: Format, name: str | None) -> dict[str, Any]:  # noqa: A002
        if format == "promptsource":
            if self.templates is None:
                raise InputError("format promptsource needs --templates: a templates.yaml, or a folder of them")
            return {
                "templates": find_templates(self.templates, name) if name else self.templates,
                "max_instances": self.max_instances or MAX_INSTANCES,
                "seed": self.seed,
                "turned_around": self.turned_around,
                "left_out": self.left_out,
                "task": self.task,
            }
        options: dict[Format, dict[str, Any]] = {
            "instances": {"fields": self.fields, "task": self.task},
            "natural_instructions": {} if self.shots is None else {"shots": self.shots},
            "bigbench": {"seed": self.seed, "task": self.task},
            "chats": {"task": self.task},
        }
        return options[format]

    def _limited(self, read: Read, problems: Problems) -> Iterator[tuple[str, Instance]]:
        if self.max_instances is None:
            yield from read(problems)
        else:
            yield from at_most(self.max_instances, read, problems, seed=self.seed)


def _format(name: str | None) -> Format | None:
    if name is None:
        return None
    for known in FORMATS:
        if name == known:
            return known
    raise InputError(f"unknown format {name!r}; one of {', '.join(FORMATS)}")

"""`cappy eval zeroshot`: multiple choice without an LLM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cappy_select.cli.output import (
    Json,
    Revision,
    ScorerSource,
    note,
    note_problems,
    note_report,
    print_json,
    print_report_table,
    progress,
)
from cappy_select.core.errors import InputError
from cappy_select.data.formats import Problems
from cappy_select.evaluate.likelihood import PREFIX, LikelihoodJudge
from cappy_select.evaluate.report import check_folder, write_report
from cappy_select.evaluate.reward import RewardJudge
from cappy_select.evaluate.zeroshot import (
    Judge,
    accuracy_table,
    differences,
    evaluate_zeroshot,
    notes,
    read_files,
    read_paper_tasks,
    zeroshot_report,
)
from cappy_select.scorer import Scorer


def zeroshot(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Instances with choices: JSONL, JSON, CSV or Parquet; none: the paper's tasks of the hub."),
    ] = None,
    scorer: ScorerSource = None,
    revision: Revision = None,
    against: Annotated[str | None, typer.Option(help="Compare with this scorer too, on the same rows.")] = None,
    likelihood: Annotated[
        list[str] | None,
        typer.Option(help="And with a language model's likelihoods: transformers:PATH; may be repeated."),
    ] = None,
    reward_model: Annotated[
        list[str] | None,
        typer.Option(help="And with a reward model, a classifier with one label: folder or hub id; may be repeated."),
    ] = None,
    choices: Annotated[tuple[int, int], typer.Option(min=2, help="Only rows with so many choices, from and to.")] = (
        2,
        1_000_000,
    ),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of each task.")] = None,
    templates: Annotated[str | None, typer.Option(help="PromptSource's folder of templates, where no file is.")] = None,
    copies: Annotated[
        str | None, typer.Option(help="A folder with copies of hub data sets, at org/name[/subset], used instead.")
    ] = None,
    parameters: Annotated[
        int | None, typer.Option(min=1, help="Of the scorer, for the picture; default: about, from its size.")
    ] = None,
    out: Annotated[str, typer.Option(help="Folder for the report.")] = "runs/eval/zeroshot",
    json: Json = False,
) -> None:
    """How often the scorer's best choice is the right one, beside chance, majority, longest, and the paper's models.

    Accuracy is the mean over a task's templates, then over tasks, as in the paper. JSON: one object; fractions of 1.
    """
    if not files and templates is None:
        raise InputError(
            "give files of instances; or, for the paper's tasks from the hub, PromptSource's templates: clone "
            "https://github.com/bigscience-workshop/promptsource and give --templates "
            "promptsource/promptsource/templates"
        )
    if files and (templates is not None or copies is not None):
        raise InputError(
            "--templates and --copies are for the paper's tasks from the hub: leave out the files, or them"
        )
    check_folder(out)
    loaded = Scorer.load(scorer, revision=revision)
    other = None if against is None else Scorer.load(against)
    judges: list[Judge] = [
        *map(LikelihoodJudge, likelihood or (), _told_apart("--likelihood", likelihood or ())),
        *map(RewardJudge, reward_model or (), _told_apart("--reward-model", reward_model or ())),
    ]
    problems = Problems()
    instances = (
        read_files(files)
        if files
        else read_paper_tasks(str(templates), problems, copies=None if copies is None else Path(copies))
    )
    with progress("choices") as advance:
        report = evaluate_zeroshot(
            instances, loaded, against=other, judges=judges, choices=choices, limit=limit, parameters=parameters,
            on_progress=advance,
        )  # fmt: skip
    note_problems(problems.listed, problems.count, hint="")
    whole = write_report(out, zeroshot_report(report))
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        print_report_table(accuracy_table(report), f"scorer: {report.scorer}")
        for gain in differences(report):
            note(gain)
        for said in notes(report):
            note(said)
    note_report(out, whole)


def _told_apart(option: str, sources: Sequence[str]) -> list[str | None]:
    """A source that ends as another does goes by the whole of it; the others have their own names."""
    paths = [source.removeprefix(PREFIX).rstrip("/") for source in sources]
    if len(set(paths)) < len(paths):
        raise InputError(f"{option} names a model twice: {', '.join(sources)}")
    ends = Counter(Path(path).name for path in paths)
    return [path if ends[Path(path).name] > 1 else None for path in paths]

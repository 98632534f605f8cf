"""`cappy eval`: measurements of a scorer."""

from __future__ import annotations

from typing import Annotated

import typer

from cappy_select.cli.output import (
    Json,
    Revision,
    ScorerSource,
    new_app,
    note,
    print_json,
    print_table,
    progress,
)
from cappy_select.evaluate.selection import SelectionReport, evaluate_selection
from cappy_select.evaluate.zeroshot import ZeroshotReport, evaluate_zeroshot
from cappy_select.scorer import Scorer
from cappy_select.strategies import NAMES

app = new_app(no_args_is_help=True)


@app.callback()
def _eval() -> None:
    """Measure a scorer on recorded answers, or on multiple choice."""


@app.command()
def selection(
    files: Annotated[list[str], typer.Argument(help="JSONL (or .gz) of instances with candidates.")],
    scorer: ScorerSource = None,
    revision: Revision = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help=f"Compare this strategy too; may be repeated; 'all': {', '.join(NAMES)}."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first instances of each file.")] = None,
    json: Json = False,
) -> None:
    """Compare Cappy's picks with random, first, longest, best single model, vote and oracle.

    A line holds id, instruction, references and candidates[{model, response, correct | human}]. JSON: one
    object for one file, a list for several; fractions of 1.
    """
    loaded = Scorer.load(scorer, revision=revision)
    reports = []
    for file in files:
        with progress(file.rsplit("/", 1)[-1]) as advance:
            reports.append(
                evaluate_selection(file, loaded, limit=limit, strategies=strategy or (), on_progress=advance)
            )
    if json:
        dumped = [report.model_dump(mode="json") for report in reports]
        print_json(dumped[0] if len(dumped) == 1 else dumped)
        return
    for report in reports:
        _print(report)


@app.command()
def zeroshot(
    files: Annotated[list[str], typer.Argument(help="Instances with choices: JSONL, JSON, CSV or Parquet.")],
    scorer: ScorerSource = None,
    revision: Revision = None,
    against: Annotated[str | None, typer.Option(help="Compare with this scorer too, on the same rows.")] = None,
    choices: Annotated[tuple[int, int], typer.Option(min=2, help="Only rows with so many choices, from and to.")] = (
        2,
        1_000_000,
    ),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of each task.")] = None,
    json: Json = False,
) -> None:
    """How often the scorer's best choice is the right one, beside chance, majority and longest.

    Accuracy is the mean over a task's templates, then over tasks, as in the paper. JSON: one object; fractions of 1.
    """
    loaded = Scorer.load(scorer, revision=revision)
    other = None if against is None else Scorer.load(against)
    with progress("choices") as advance:
        report = evaluate_zeroshot(files, loaded, against=other, choices=choices, limit=limit, on_progress=advance)
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        _print_zeroshot(report)


def _print_zeroshot(report: ZeroshotReport) -> None:
    compared = report.against

    def row(name: str, n: int, values: list[float | None]) -> list[str]:
        return [name, str(n), *("" if value is None else f"{value:.1%}" for value in values)]

    def with_other(values: list[float | None], other: float | None) -> list[float | None]:
        return values if compared is None else [*values, other]

    lines = [
        row(
            each.task, each.n,
            with_other([each.cappy, each.median, each.chance, each.majority, each.longest], each.other),
        )
        for each in report.tasks
    ]  # fmt: skip
    mean = None if compared is None else compared.mean
    lines.append(
        row("mean", report.n, with_other([report.cappy, None, report.chance, report.majority, report.longest], mean))
    )
    names = [
        "task",
        "rows",
        "cappy",
        "median",
        "chance",
        "majority",
        "longest",
        *([] if compared is None else ["other"]),
    ]
    print_table(f"scorer: {report.scorer}", names, lines, right=tuple(range(1, len(names))))
    if compared is not None:
        note(
            f"{100 * compared.difference:+.1f} points to {compared.scorer} "
            f"(95 %: {100 * compared.low:+.1f} to {100 * compared.high:+.1f})"
        )
    if report.left_out:
        note(f"{report.left_out} rows were left out: not so many choices, or none of them, or each, a reference")
    if report.cut_pairs:
        note(f"{report.cut_pairs} pairs did not fit the scorer's window and were cut")


def _print(report: SelectionReport) -> None:
    rows = [
        ("random (expected)", report.random),
        ("first", report.first),
        ("longest", report.longest),
        (f"best single ({report.best_model})", report.best_single),
        ("majority vote", report.vote),
        ("cappy", report.cappy),
        ("oracle", report.oracle),
    ]
    rows[-1:-1] = [(f"strategy {name}", value) for name, value in report.strategies.items()]
    print_table(
        f"{report.file}: {report.n} instances, {report.candidates:.1f} candidates each\nscorer: {report.scorer}",
        ("picked by", "quality"),
        [(name, _unknown(name) if value is None else f"{value:.1%}") for name, value in rows],
        right=(1,),
    )
    if report.cut_pairs:
        note(f"{report.cut_pairs} pairs did not fit the scorer's window and were cut")


def _unknown(name: str) -> str:
    if "vote" in name:
        return "no majority in most"
    return "no costs recorded" if "cost" in name else "no log-probabilities recorded"

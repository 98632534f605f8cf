"""`cappy eval zeroshot`: multiple choice without an LLM."""

from __future__ import annotations

from typing import Annotated

import typer

from cappy_select.cli.output import Json, Revision, ScorerSource, note, print_json, print_table, progress
from cappy_select.evaluate.zeroshot import ZeroshotReport, evaluate_zeroshot
from cappy_select.scorer import Scorer


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

"""`cappy eval selection`: how good the picks among recorded answers are."""

from __future__ import annotations

from typing import Annotated

import typer

from cappy_select.cli.output import (
    Json,
    Revision,
    ScorerSource,
    note,
    note_report,
    print_json,
    print_report_table,
    progress,
)
from cappy_select.evaluate.report import check_folder, write_report
from cappy_select.evaluate.selection import evaluate_selection, notes, selection_report, selection_table
from cappy_select.scorer import Scorer
from cappy_select.select.strategies import NAMES


def selection(
    files: Annotated[list[str], typer.Argument(help="JSONL (or .gz) of instances with candidates.")],
    scorer: ScorerSource = None,
    revision: Revision = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help=f"Compare this strategy too; may be repeated; 'all': {', '.join(NAMES)}."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first instances of each file.")] = None,
    out: Annotated[str, typer.Option(help="Folder for the report.")] = "runs/eval/selection",
    json: Json = False,
) -> None:
    """Compare Cappy's picks with random, first, longest, best single model, vote and oracle; audit the scorer.

    A line holds id, instruction, references and candidates[{model, response, correct | human}]. JSON: one
    object for one file, a list for several; fractions of 1.
    """
    check_folder(out)
    loaded = Scorer.load(scorer, revision=revision)
    reports = []
    for file in files:
        with progress(file.rsplit("/", 1)[-1]) as advance:
            reports.append(
                evaluate_selection(file, loaded, limit=limit, strategies=strategy or (), on_progress=advance)
            )
    whole = write_report(out, selection_report(reports))
    if json:
        dumped = [report.model_dump(mode="json") for report in reports]
        print_json(dumped[0] if len(dumped) == 1 else dumped)
    else:
        for report in reports:
            table = selection_table(report)
            print_report_table(table, f"{table.title}\nscorer: {report.scorer}")
            for said in notes(report):
                note(said)
    note_report(out, whole)

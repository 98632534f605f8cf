"""`cappy eval scaling`: quality against the number of samples."""

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
from cappy_select.data.labels import LABELS
from cappy_select.evaluate.report import check_folder, write_report
from cappy_select.evaluate.scaling import evaluate_scaling, scaling_report, scaling_table
from cappy_select.scorer import Scorer


def scaling(
    files: Annotated[list[str], typer.Argument(help="JSONL (or .gz) of instances with candidates, or sample stores.")],
    scorer: ScorerSource = None,
    revision: Revision = None,
    label: Annotated[
        str, typer.Option(help=f"Quality of answers without 'correct' or 'human': {', '.join(LABELS)}.")
    ] = "rouge_l",
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Only this model's answers; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first instances of each file.")] = None,
    out: Annotated[str, typer.Option(help="The folder of the report.")] = "runs/eval/scaling",
    json: Json = False,
) -> None:
    """Expected quality of the pick among 1, 2, 4, ... and all answers, and whether the scorer is over-optimised.

    It is, when the pick's score rises with more samples and its quality falls. JSON: {"files": [...]}; fractions of 1.
    """
    check_folder(out)
    loaded = Scorer.load(scorer, revision=revision)
    found = []
    for file in files:
        with progress(file.rsplit("/", 1)[-1]) as advance:
            found.append(
                evaluate_scaling(file, loaded, label=label, models=model or (), limit=limit, on_progress=advance)
            )
    report = scaling_report(found)
    whole = write_report(out, report)
    if json:
        print_json(report.data)
    else:
        for one in found:
            print_report_table(scaling_table(one))
    for said in report.remarks[: len(found)]:
        note(said)
    note_report(out, whole)

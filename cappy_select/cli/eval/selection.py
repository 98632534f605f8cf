"""`cappy eval selection`: how good the picks among recorded answers are."""

from __future__ import annotations

from typing import Annotated

import typer

from cappy_select.cli.output import Json, Revision, ScorerSource, note, print_json, print_table, progress
from cappy_select.evaluate.selection import SelectionReport, evaluate_selection
from cappy_select.scorer import Scorer
from cappy_select.strategies import NAMES


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

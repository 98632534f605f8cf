"""`cappy data judge`: a model marks stored samples."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from cappy_select.cli.output import ApiBase, Json, note, one_line, print_json
from cappy_select.cli.sample import limits_of, with_progress
from cappy_select.cli.select import dollars
from cappy_select.data.bulk import Outcome
from cappy_select.data.judge import Judge
from cappy_select.data.store import SampleStore


def judge(
    store: Annotated[str, typer.Argument(help="A sample store.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Who judges: a LiteLLM model name or openai:MODEL.")],
    max_cost: Annotated[float | None, typer.Option(help="Dollars, with what was spent in this store before.")] = None,
    concurrency: Annotated[int, typer.Option(help="Calls at a time.")] = 16,
    per_minute: Annotated[float | None, typer.Option(help="Calls begun a minute.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one call, retries included.")] = 120.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many responses are left; ask nothing.")] = False,
    api_base: ApiBase = None,
    json: Json = False,
) -> None:
    """Have a model mark the responses in a store, for `cappy build --label judge:MODEL`.

    It reads instruction, references and response, and answers from 0 to 10; a mark is kept as a number from 0 to
    1. What is marked is not asked again. JSON: {"judge", "left", "outcome", "unreadable"}.
    """
    limits = limits_of(max_cost=max_cost, concurrency=concurrency, per_minute=per_minute, timeout_s=timeout)
    with SampleStore(store, write=True, make=False) as opened:
        marking = Judge(model, opened, limits=limits, api_base=api_base)
        total, outcome = marking.left(), Outcome()
        if not dry_run:
            outcome = with_progress("judging", marking.run, total)
        left = marking.left()
    result = {"judge": marking.name, "left": left, "outcome": asdict(outcome), "unreadable": marking.unreadable}
    if json:
        print_json(result)
    else:
        print(f"{marking.name}: {total - left} responses marked, {left} left, {dollars(outcome.cost)}")
    if marking.unreadable:
        note(f"{marking.unreadable} answers held no mark from 0 to 10; those are asked about again next time")
    for name, why in outcome.stopped.items():
        note(f"{name}: stopped: {one_line(why, 300)}")
    if outcome.stopped:
        raise typer.Exit(3)

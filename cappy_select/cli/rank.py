"""`cappy rank`: the responses, best first."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cappy_select.cli.output import (
    Json,
    Revision,
    ScorerSource,
    json_number,
    new_app,
    note,
    one_line,
    print_json,
)
from cappy_select.core.errors import InputError
from cappy_select.scorer import Scorer

app = new_app()


@app.command()
def rank(
    instruction: Annotated[str, typer.Argument(help="What was asked.")],
    responses: Annotated[
        list[str] | None,
        typer.Argument(help="The responses; '-' or none reads them from standard input, one a line."),
    ] = None,
    scorer: ScorerSource = None,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Rank responses to an instruction, best first.

    With the possible answers as responses this is Cappy's classification: no LLM is asked.
    """
    ranked = Scorer.load(scorer, revision=revision).rank(instruction, read_responses(responses))
    cut = sum(row.tokens_cut > 0 for row in ranked)
    if cut:
        note(f"{cut} of {len(ranked)} pairs did not fit the scorer's window and were cut")
    if json:
        print_json([{"index": row.index, "response": row.response, "score": json_number(row.score)} for row in ranked])
    else:
        for row in ranked:
            print(f"{row.score:8.4f}  {one_line(row.response)}")


def read_responses(responses: list[str] | None) -> list[str]:
    """The responses named, or the lines of standard input."""
    if responses and responses != ["-"]:
        return responses
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("no responses: name them after the instruction, or pipe them in, one a line")
    # Not splitlines(), which also breaks at form feeds and U+2028 inside a response.
    lines = [line.removesuffix("\r") for line in sys.stdin.read().removesuffix("\n").split("\n")]
    if lines == [""]:
        raise InputError("no responses: standard input was empty")
    return lines

"""`cappy score`: raw scores, in the order given."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from cappy_select.cli.output import (
    Json,
    Revision,
    ScorerSource,
    new_app,
    note,
    one_line,
    print_json,
    progress,
)
from cappy_select.cli.rank import read_responses
from cappy_select.errors import InputError
from cappy_select.scorer import Scorer

app = new_app()


@app.command()
def score(
    instruction: Annotated[str | None, typer.Argument(help="What was asked.")] = None,
    responses: Annotated[
        list[str] | None,
        typer.Argument(help="The responses; '-' or none reads them from standard input, one a line."),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(help="Instead: a JSONL file of {instruction, response} ('-' for standard input); prints JSONL."),
    ] = None,
    scorer: ScorerSource = None,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Score responses to one instruction, or a file of pairs, in the order given."""
    if (instruction is None) == (pairs is None):
        raise InputError("give an instruction with its responses, or --pairs FILE, and not both")
    if pairs is not None:
        rows = _read_pairs(pairs)
    else:
        rows = [(str(instruction), response) for response in read_responses(responses)]
    loaded = Scorer.load(scorer, revision=revision)
    total = len(set(rows))
    with progress("scoring", shown=pairs is not None) as advance:
        scored = loaded.score_detailed(rows, on_progress=lambda done: advance(done, total))
    cut = int((scored.cut > 0).sum())
    if cut:
        note(f"{cut} of {len(rows)} pairs did not fit the scorer's window and were cut")
    results = zip(rows, scored.scores.tolist(), strict=True)
    if pairs is not None:
        for (asked, response), value in results:
            print(jsonlib.dumps({"instruction": asked, "response": response, "score": value}, ensure_ascii=False))
    elif json:
        print_json([{"index": i, "response": row[1], "score": value} for i, (row, value) in enumerate(results)])
    else:
        for (_, response), value in results:
            print(f"{value:8.4f}  {one_line(response)}")


def _read_pairs(path: str) -> list[tuple[str, str]]:
    if path == "-":
        return list(_parse(sys.stdin, "standard input"))
    try:
        with Path(path).open(encoding="utf-8") as lines:
            return list(_parse(lines, path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}") from error


def _parse(lines: Iterable[str], name: str) -> Iterable[tuple[str, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = jsonlib.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}:{number} is not JSON: {error}") from error
        if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("instruction", "response")):
            raise InputError(f"{name}:{number} must be an object with the strings 'instruction' and 'response'")
        yield row["instruction"], row["response"]

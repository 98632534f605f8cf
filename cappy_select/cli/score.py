"""`cappy score`: raw scores, in the order given."""

from __future__ import annotations

import json as jsonlib
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
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
    progress,
)
from cappy_select.cli.rank import read_responses
from cappy_select.core.characters import escaped
from cappy_select.core.errors import InputError
from cappy_select.core.files import json_lines, read_lines
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
    loaded = Scorer.load(scorer, revision=revision)
    if pairs is not None:
        _score_file(loaded, pairs)
        return
    rows = [(str(instruction), response) for response in read_responses(responses)]
    scored = loaded.score_detailed(rows)
    _note_cut(int((scored.cut > 0).sum()), len(rows))
    if json:
        results = zip(rows, scored.scores.tolist(), strict=True)
        print_json(
            [{"index": i, "response": row[1], "score": json_number(value)} for i, (row, value) in enumerate(results)]
        )
    else:
        for (_, response), value in zip(rows, scored.scores.tolist(), strict=True):
            print(f"{value:8.4f}  {one_line(response)}")


def _score_file(scorer: Scorer, path: str) -> None:
    """Print a line for every pair as its window is scored, so a file of any size takes little memory."""
    # A file (not a pipe) is read through first: a bad line is found before any pair is scored, and the bar has an end.
    total = sum(1 for _ in _read_pairs(path)) if Path(path).is_file() else None
    asked: deque[tuple[str, str]] = deque()

    def remembered() -> Iterator[tuple[str, str]]:
        for pair in _read_pairs(path):
            asked.append(pair)
            yield pair

    cut = count = 0
    with progress("scoring") as advance:
        for piece in scorer.stream(remembered(), on_progress=lambda done: advance(done, total)):
            for value in piece.scores.tolist():
                instruction, response = asked.popleft()
                row = {"instruction": instruction, "response": response, "score": json_number(value)}
                print(escaped(jsonlib.dumps(row, ensure_ascii=False)))
            cut += int((piece.cut > 0).sum())
            count += len(piece.scores)
    _note_cut(cut, count)


def _note_cut(cut: int, count: int) -> None:
    if cut:
        note(f"{cut} of {count} pairs did not fit the scorer's window and were cut")


def _read_pairs(path: str) -> Iterator[tuple[str, str]]:
    lines, name = (sys.stdin.buffer, "standard input") if path == "-" else (read_lines(path), path)
    for where, row in json_lines(lines, name):
        if not all(isinstance(row.get(key), str) for key in ("instruction", "response")):
            raise InputError(f"{where} must be an object with the strings 'instruction' and 'response'")
        yield row["instruction"], row["response"]

"""`cappy data show`: what is in a file of the offline line, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cappy_select.cli.output import Json, note, note_problems, one_line, print_json, print_table
from cappy_select.core.errors import InputError, MissingExtra
from cappy_select.core.terminal import harmless
from cappy_select.data.sharding import SCORE_BINS
from cappy_select.data.stages import WINDOW
from cappy_select.data.summary import STEP, Summary, summary_of

_WIDTH = 40  # of a bar
_LISTED = 20


def show(
    file: Annotated[str, typer.Argument(help="Instances, a sample store, a file of pairs, or a folder of them.")],
    rows: Annotated[int, typer.Option(min=0, help="Rows to print.")] = 5,
    plot: Annotated[str | None, typer.Option(help="Write the histograms to this PNG file.")] = None,
    json: Json = False,
) -> None:
    """Show what is in a file: a few rows, counts, scores, lengths."""
    summary = summary_of(file, examples=rows)
    if plot is not None:
        _plot(summary, plot)
    if json:
        print_json(summary.model_dump(mode="json"))
        return
    for number, example in enumerate(summary.examples):
        print("" if number == 0 else "—")
        for name, value in example.items():
            print(f"{name:>13}: {one_line(str(value), 200)}")
    print()
    for of, counts in summary.counts.items():
        listed = [(name, f"{count:,}") for name, count in list(counts.items())[:_LISTED]]
        if len(counts) > _LISTED:
            listed.append((f"and {len(counts) - _LISTED} more", f"{sum(list(counts.values())[_LISTED:]):,}"))
        title = f"{summary.name}: {summary.rows:,} {summary.holds}" if of == next(iter(summary.counts)) else ""
        print_table(title, (of, summary.holds), listed, right=(1,))
    if summary.scores is not None:
        _bars("score", [f"{place / SCORE_BINS:.2f}" for place in range(SCORE_BINS)], summary.scores)
    title = f"tokens, instruction and response, of {summary.measured:,} of them"
    _bars(title, [f"≤ {STEP * (place + 1)}" for place in range(WINDOW // STEP)] + [f"> {WINDOW}"], summary.lengths)
    note_problems(summary.left_out, summary.left_out_count, hint="")
    if summary.failures:
        note(f"{len(summary.failures)} samples did not come:")
        for failure in summary.failures[:_LISTED]:
            note(f"  {one_line(failure, 160)}")


def _bars(title: str, names: list[str], counts: list[int]) -> None:
    print(f"\n{title}")
    most = max([*counts, 1])
    for name, count in zip(names, counts, strict=True):
        if count or title != "score":
            print(f"{name:>6} {'█' * -(-count * _WIDTH // most):<{_WIDTH}} {count:,}")


def _plot(summary: Summary, path: str) -> None:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("data", "--plot", "matplotlib") from error
    panels = 1 + (summary.scores is not None)
    with rc_context({"text.parse_math": False}):  # a file's name is no formula
        _draw(Figure(figsize=(5 * panels, 3.5), layout="constrained"), panels, summary, path)


def _draw(figure: Any, panels: int, summary: Summary, path: str) -> None:
    axes = figure.subplots(1, panels, squeeze=False)[0]
    axes[0].bar([STEP * (place + 0.5) for place in range(len(summary.lengths))], summary.lengths, width=STEP * 0.9)
    axes[0].axvline(WINDOW, color="black", linestyle="--", linewidth=1)
    axes[0].set(xlabel=f"tokens (beyond {WINDOW} together)", ylabel=summary.holds, title=harmless(summary.name))
    if summary.scores is not None:
        axes[1].bar([(place + 0.5) / SCORE_BINS for place in range(SCORE_BINS)], summary.scores, width=0.9 / SCORE_BINS)
        axes[1].set(xlabel="score", yscale="symlog")
    if not path.lower().endswith(".png"):
        raise InputError(f"--plot writes PNG; {path} should end in .png")
    try:
        figure.savefig(Path(path), dpi=120)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error}") from error
    note(f"histograms: {path}")

"""`cappy eval ablation`: what each part of an adaptation is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cappy_select.cli.output import (
    Json,
    Revision,
    ScorerSource,
    bars,
    note,
    note_report,
    print_json,
    print_report_table,
)
from cappy_select.data.instances import named_fields
from cappy_select.evaluate.report import check_folder, write_report


def ablation(
    recorded: Annotated[
        list[str], typer.Option(help="Recorded samples, or a sample store, such as an adaptation's; may be repeated.")
    ],
    instances: Annotated[
        list[str] | None, typer.Argument(help="Instances; default: those that the samples are of.")
    ] = None,
    scorer: ScorerSource = None,
    revision: Revision = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="A checkpoint that was never a scorer, to start from without pretraining; default: random."),
    ] = None,
    label: Annotated[str, typer.Option(help="What says how right a sample is when nobody did.")] = "rouge_l",
    held_out: Annotated[float, typer.Option(help="Share of the instances that is compared on.")] = 0.2,
    epochs: Annotated[float, typer.Option(help="Over the training instances; at least 40 updates.")] = 1.0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the trainer's configuration; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first instances of each file.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS: where the file has another name; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the report, and of what is trained.")] = Path(
        "runs/eval/ablation"
    ),
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    json: Json = False,
) -> None:
    """Adapt with everything, without pretraining, without the LLM's samples, and not at all.

    The instances need references, which are all that is left without the samples. Run it again and it goes on.
    """
    from cappy_select.adapt.ablation import ablation as run_ablation
    from cappy_select.adapt.config import adapt_config
    from cappy_select.cli.train import hush_threads

    check_folder(out)
    config = adapt_config(
        label=label, held_out=held_out, scorer=scorer, revision=revision, epochs=epochs, settings=tuple(set_ or ()),
        seed=seed,
    )  # fmt: skip
    hush_threads()
    with bars(shown=not json) as advance:
        found = run_ablation(
            instances or (),
            out,
            config,
            recorded=recorded,
            encoder=encoder,
            fields=named_fields(field or ()),
            limit=limit,
            on_stage=(lambda stage: None) if json else note,
            on_progress=advance,
        )
    if isinstance(found, int):
        note("stopped in a training, with a checkpoint: the same command goes on")
        raise typer.Exit(128 + found)
    report = found.report()
    drawn = write_report(out, report)
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        print_report_table(report.tables[0], f"{found.n} held-out instances")
    note_report(str(out), drawn)

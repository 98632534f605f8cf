"""`cappy adapt`: a scorer of one task, from instances of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cappy_select.cli.output import (
    AllowDowngrade,
    ApiBase,
    Json,
    MaxTokens,
    PlanName,
    Revision,
    ScorerSource,
    Temperature,
    bars,
    new_app,
    note,
    note_problems,
    note_report,
    one_line,
    print_json,
    print_table,
)
from cappy_select.cli.sample import limits_of, with_progress
from cappy_select.cli.select import as_plan_option, dollars
from cappy_select.data.instances import named_fields

if TYPE_CHECKING:
    from cappy_select.adapt.estimate import AdaptEstimate
    from cappy_select.adapt.report import AdaptReport

app = new_app()


@app.command()
def adapt(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of this adaptation; run it again to go on.")],
    instances: Annotated[
        list[str] | None, typer.Argument(help="Instances with references: JSONL, JSON, CSV, TSV or Parquet.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "--models",
            "-m",
            help="A LiteLLM model name, openai:MODEL or transformers:PATH; may be repeated.",
        ),
    ] = None,
    recorded: Annotated[
        list[str] | None,
        typer.Option(help="Recorded samples (a file of instances with candidates) or a sample store; may be repeated."),
    ] = None,
    samples: Annotated[int | None, typer.Option("-n", help="Answers to ask of each model; default 4.")] = None,
    plan: PlanName = None,
    allow_downgrade: AllowDowngrade = False,
    icl: Annotated[int, typer.Option(help="In-context examples put before the models' prompts.")] = 0,
    label: Annotated[
        str, typer.Option(help="What says how right a sample is when nobody did: see `cappy build --help`.")
    ] = "rouge_l",
    references: Annotated[
        bool | None,
        typer.Option(
            "--references/--no-references",
            help="Train on the references too; default: unless it is known how right the samples are.",
        ),
    ] = None,
    held_out: Annotated[float, typer.Option(help="Share of the instances that only the report sees.")] = 0.2,
    validation: Annotated[float, typer.Option(help="Share of the others that training is watched by.")] = 0.1,
    scorer: ScorerSource = None,
    revision: Revision = None,
    epochs: Annotated[float, typer.Option(help="Over the training instances; at least 40 updates.")] = 1.0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the trainer's configuration; may be repeated.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the bundle: fp32, fp16, int8.")] = "fp32",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked, what it costs and how long it takes.")
    ] = False,
    max_cost: Annotated[float | None, typer.Option(help="Dollars for the samples.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Go on with the samples there are, when others did not come.")
    ] = False,
    concurrency: Annotated[int, typer.Option(help="Calls to one model at a time.")] = 16,
    per_minute: Annotated[float | None, typer.Option(help="Calls to one model begun a minute.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one call, retries included.")] = 120.0,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="Ask for log-likelihoods, for self-scoring.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first instances of each file.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS: where the file has another name; may be repeated.")
    ] = None,
    api_base: ApiBase = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that can't be used.")] = False,
    json: Json = False,
) -> None:
    """Teach a scorer your task, without touching the LLMs: samples, pairs, training, a bundle and a report.

    Kill it at any moment and run it again: it goes on, and nothing that was stored is asked again.
    """
    from cappy_select.adapt.config import adapt_config
    from cappy_select.adapt.run import adapt as run_adaptation
    from cappy_select.cli.train import hush_threads

    params = {"temperature": temperature, "max_tokens": max_tokens}
    config = adapt_config(
        models=tuple(model or ()),
        samples=samples,
        plan=as_plan_option(plan, allow_downgrade),
        icl=icl,
        params={name: value for name, value in params.items() if value is not None},
        logprobs=logprobs,
        label=label,
        references=references,
        held_out=held_out,
        validation=validation,
        scorer=scorer,
        revision=revision,
        epochs=epochs,
        settings=tuple(set_ or ()),
        precision=precision,
        seed=seed,
    )
    given: dict[str, Any] = {
        "recorded": recorded or (),
        "fields": named_fields(field or ()),
        "limit": limit,
        "limits": limits_of(max_cost=max_cost, concurrency=concurrency, per_minute=per_minute, timeout_s=timeout),
        "api_base": api_base,
        "strict": strict,
    }
    hush_threads()
    if dry_run:
        from cappy_select.adapt.estimate import estimate

        found = estimate(instances or (), out, config, **given)
        if json:
            print_json(found.model_dump(mode="json"))
        else:
            _print_estimate(found)
        return
    stage: Callable[[str], None] = (lambda text: None) if json else note
    with bars(shown=not json) as advance:
        done = run_adaptation(
            instances or (),
            out,
            config,
            **given,
            partial_samples=partial,
            on_stage=stage,
            on_progress=advance,
            on_samples=lambda run, total: with_progress("sampling", run, total),
        )
    note_problems(done.problems.listed, done.problems.count)
    for name, why in done.stopped.items():
        note(f"{name}: stopped: {one_line(why, 300)}")
    if done.stopped:
        note(f"`cappy data show {out / 'samples.db'}` lists what did not come")
    if done.signal is not None:
        note("stopped in the training, with a checkpoint: the same command goes on")
        raise typer.Exit(128 + done.signal)
    if done.report is None:
        note("the same command goes on; --partial goes on with the samples that are there")
        raise typer.Exit(3)
    if json:
        print_json(done.report.model_dump(mode="json"))
    else:
        _print_report(done.report)
        print(f'bundle: {out / "bundle"}   (cappy rank --scorer {out / "bundle"} "…" …)')
    note_report(str(out / "report"), done.drawn)


def _print_estimate(found: AdaptEstimate) -> None:
    if found.models:
        rows = [
            (row.model, str(row.stored), str(row.samples), str(row.calls), dollars(row.cost)) for row in found.models
        ]
        print_table("what would be asked", ("model", "stored", "to ask", "calls", "cost"), rows, right=(1, 2, 3, 4))
    print(
        f"{found.train} instances to learn from, {found.held_out} held out; {found.calls} calls, "
        f"{dollars(found.cost)}; about {found.sampling_minutes:.0f} min of sampling and "
        f"{found.training_minutes:.0f} min of training ({found.updates} updates, at most {found.pairs} pairs)"
    )


def _print_report(report: AdaptReport) -> None:
    from cappy_select.adapt.report import way_rows

    title = f"{report.n} held-out instances, {report.candidates:.1f} answers each"
    columns, rows = way_rows(report)
    print_table(title, columns, rows, right=tuple(range(1, len(columns))))

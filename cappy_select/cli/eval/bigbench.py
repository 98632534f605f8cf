"""`cappy eval bigbench`: an LLM's answers to BIG-bench, and the scorer's picks among them."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Annotated

import typer

from cappy_select.ask.in_context import InContext
from cappy_select.ask.providers import Capabilities, Provider, TransformersProvider, as_providers
from cappy_select.ask.sampling import Plan
from cappy_select.cli.output import (
    AllowDowngrade,
    ApiBase,
    ExamplesFile,
    Json,
    Revision,
    ScorerSource,
    Shots,
    note,
    note_problems,
    note_report,
    one_line,
    print_json,
    print_report_table,
    progress,
)
from cappy_select.cli.sample import limits_of, with_progress
from cappy_select.core.errors import InputError
from cappy_select.core.json_text import loads
from cappy_select.data.bulk import Limits
from cappy_select.data.formats import Problems
from cappy_select.data.instances import Instance
from cappy_select.data.readers import READERS, sniff
from cappy_select.data.sample import Sampler
from cappy_select.data.sources import read_bigbench45
from cappy_select.data.store import SampleStore
from cappy_select.evaluate.bigbench import (
    Answered,
    bigbench_report,
    differences_table,
    evaluate_bigbench,
    generation,
    recorded_answers,
    stored_answers,
    ways_table,
)
from cappy_select.evaluate.report import Table, check_folder, write_report
from cappy_select.scorer import Scorer

_LOCAL = "transformers:"
_SOURCE_TOKENS = 512  # the paper's


def bigbench(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Instances, or BIG-bench's own tasks; default: the paper's 45 tasks, from the hub."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="transformers:PATH, a LiteLLM model name or openai:MODEL; may be repeated."),
    ] = None,
    recorded: Annotated[
        list[str] | None,
        typer.Option(help="Recorded samples instead of a model: a file or a sample store; may be repeated."),
    ] = None,
    scorer: ScorerSource = None,
    revision: Revision = None,
    against: Annotated[str | None, typer.Option(help="Compare with this scorer too, on the same answers.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Only the first instances of each task.")] = 100,
    copies: Annotated[
        str | None, typer.Option(help="A folder with copies of hub data sets, at org/name[/subset], used instead.")
    ] = None,
    examples: ExamplesFile = None,
    shots: Shots = 4,
    store: Annotated[str | None, typer.Option(help="Where samples are kept; default: samples.db in --out.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Dollars, over all runs with this store.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one call, retries included.")] = 600.0,
    allow_downgrade: AllowDowngrade = False,
    api_base: ApiBase = None,
    out: Annotated[str, typer.Option(help="The folder of the report.")] = "runs/eval/bigbench",
    json: Json = False,
) -> None:
    """Ask LLMs for the paper's 17 answers to each generation instance, and compare the picks by Rouge-L.

    Kill it at any moment and run it again: it goes on. When a model is down or the money is spent, the report is of the
    answers there are, and the exit code is 3. JSON: one object; fractions of 1.
    """
    if bool(model) == bool(recorded):
        raise InputError("give a --model to ask, or --recorded samples; not both")
    if copies and files:
        raise InputError("--copies are of the hub's 45 tasks, and files are given: leave one of the two out")
    if examples and not model:
        raise InputError("--examples are shown to a --model; recorded samples are what they are")
    check_folder(out)
    loaded = Scorer.load(scorer, revision=revision)
    other = None if against is None else Scorer.load(against)
    instances, left_out = _instances(files or [], copies, limit) if files or model else (None, 0)
    parameters: dict[str, int | None] = {}
    answers: dict[str, list[Answered]] = {}
    stopped = False
    if model and instances:
        plan = Plan.preset("paper")
        if allow_downgrade:
            plan = plan.model_copy(update={"on_unsupported": "downgrade"})
        prompts = [None] if examples is None else [None, InContext.load(examples, k=shots)]
        with SampleStore(store or Path(out) / "samples.db", write=True) as opened:
            for name in model:
                provider = _provider(name, api_base)
                if provider.model in parameters:
                    raise InputError(f"{provider.model}: given twice; samples go by the name")
                limits = limits_of(max_cost=max_cost, timeout_s=timeout, concurrency=1 if _is_local(name) else 16)
                for prompt in prompts:
                    stopped |= _ask(provider, instances, opened, plan, prompt, limits)
                parameters[provider.model] = _parameters(name)
                rows = stored_answers(opened, provider.model, instances)
                if not stopped or any(row.bare for row in rows):  # else it was down from the start
                    answers[provider.model] = rows
    else:
        problems = Problems()
        answers, more = recorded_answers(recorded or (), problems, instances=instances, limit=limit)
        left_out += more
        note_problems(problems.listed, problems.count, hint="")
    try:
        with progress("answers") as advance:
            found = evaluate_bigbench(
                answers,
                loaded,
                against=other,
                asked=Plan.preset("paper").answers("") if model else None,
                parameters=parameters,
                left_out=left_out,
                on_progress=advance,
            )
    except InputError as error:
        if not stopped:
            raise
        note(f"no report yet: {error}; the same command goes on")
        raise typer.Exit(3) from error
    report = bigbench_report(found)
    whole = write_report(out, report)
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(ways_table(found))
        for each in found.models:
            _print(differences_table(each, f"{each.model}: "))
    for said in report.remarks[: len(found.models)]:
        note(said)
    if left_out:
        note(f"{left_out} instances have choices or no references: left out")
    note_report(out, whole)
    if stopped:
        raise typer.Exit(3)


def _instances(files: list[str], copies: str | None, limit: int) -> tuple[list[Instance], int]:
    """The generation instances of files, else of the paper's 45 tasks, and how many others there are."""
    problems = Problems()

    def read() -> Iterator[tuple[str, Instance]]:
        for file in files:
            yield from READERS[sniff(file)](file, problems)
        if not files:
            yield from read_bigbench45(problems, copies=None if copies is None else Path(copies))

    with progress("instances") as advance:

        def counted() -> Iterator[Instance]:
            for _, instance in read():
                advance(1)
                yield instance

        instances, left_out = generation(counted(), limit)
    if not instances and not files:
        why = ": ".join(problems.listed[0]) if problems.listed else "they hold no instance"
        raise InputError(
            f"the 45 tasks can't be read ({why}): give files of instances, or --copies FOLDER of tasksource/bigbench"
        )
    note_problems(problems.listed, problems.count, hint="")
    if not instances:
        raise InputError(f"no generation instance in {', '.join(files)}: {left_out} have choices or no references")
    return instances, left_out


def _is_local(model: str) -> bool:
    return model.startswith(_LOCAL)


def _provider(model: str, api_base: str | None) -> Provider:
    if _is_local(model):
        return TransformersProvider(model.removeprefix(_LOCAL), max_source_tokens=_SOURCE_TOKENS)
    return as_providers([model], api_base=api_base)[0]


def _ask(
    provider: Provider,
    instances: list[Instance],
    store: SampleStore,
    plan: Plan,
    examples: InContext | None,
    limits: Limits,
) -> bool:
    """Fill the store; returns whether that had to stop before everything was asked."""
    logprobs = not Capabilities.of(provider).cannot("logprobs", True)
    sampler = Sampler(
        lambda: instances, [provider], store, plan=plan, examples=examples, limits=limits, logprobs=logprobs
    )
    label = f"{provider.model}{', in context' if examples else ''}"
    outcome = with_progress(label, sampler.run, sum(row.samples for row in sampler.estimate()))
    for why in outcome.stopped.values():
        note(f"{label}: stopped: {one_line(why, 300)}")
    return bool(outcome.stopped)


def _parameters(model: str) -> int | None:
    """Of a local checkpoint, by the headers of its safetensors files; None when there are none."""
    total = 0
    for file in Path(model.removeprefix(_LOCAL)).glob("*.safetensors") if _is_local(model) else ():
        with file.open("rb") as opened:
            header = loads(opened.read(int.from_bytes(opened.read(8), "little")))
        total += sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total or None


def _print(table: Table) -> None:
    print_report_table(table)

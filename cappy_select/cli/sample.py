"""`cappy sample`: LLMs' answers to instances, kept in a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from cappy_select.ask.in_context import InContext
from cappy_select.cli.output import (
    AllowDowngrade,
    ApiBase,
    ExamplesFile,
    Json,
    MaxTokens,
    PlanName,
    Samples,
    Shots,
    Temperature,
    new_app,
    note,
    note_problems,
    one_line,
    print_json,
    print_table,
    progress,
)
from cappy_select.cli.select import as_plan_option, dollars
from cappy_select.core.errors import InputError, validation_message
from cappy_select.data.bulk import ASSUMED_TOKENS, Limits, OnProgress, Outcome
from cappy_select.data.formats import Problems
from cappy_select.data.instances import Instance, named_fields, read_instances
from cappy_select.data.sample import Estimate, Sampler, import_recorded
from cappy_select.data.store import SampleStore

app = new_app()


@app.command()
def sample(
    store: Annotated[str, typer.Option(help="The sample store, an SQLite file; made when it is not there.")],
    instances: Annotated[
        list[str] | None, typer.Argument(help="Instances: JSONL, JSON, CSV, TSV (also .gz) or Parquet.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A LiteLLM model name, openai:MODEL or transformers:PATH; may be repeated."),
    ] = None,
    samples: Samples = None,
    plan: PlanName = None,
    allow_downgrade: AllowDowngrade = False,
    recorded: Annotated[
        list[str] | None,
        typer.Option(help="Take in recorded samples: a file of instances with candidates; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked and what it costs; ask nothing.")
    ] = False,
    max_cost: Annotated[float | None, typer.Option(help="Dollars, over all runs with this store.")] = None,
    concurrency: Annotated[int, typer.Option(help="Calls to one model at a time.")] = 16,
    per_minute: Annotated[float | None, typer.Option(help="Calls to one model begun a minute.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one call, retries included.")] = 120.0,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="Ask for log-likelihoods too.")] = False,
    examples: ExamplesFile = None,
    shots: Shots = 4,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first instances of each file.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS: where the file has another name; may be repeated.")
    ] = None,
    api_base: ApiBase = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again what was refused or was no good request.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that can't be read.")] = False,
    json: Json = False,
) -> None:
    """Ask LLMs for answers to instances and keep them. Kill it at any moment and run it again: it goes on.

    What is in the store is not asked for again. Keys come from each provider's own environment variable.
    """
    if not recorded and not (instances and model):
        raise InputError("give instances and a --model to ask, or --recorded FILE")
    if dry_run and recorded:
        raise InputError("--recorded costs nothing and is not part of a dry run: leave one of the two out")
    if bool(instances) != bool(model):
        raise InputError("instances need a --model to ask, and a --model needs instances")
    problems = Problems(strict=strict)
    params: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    fields = named_fields(field or ())
    with _opened(store, dry_run) as opened:
        taken_in = sum(import_recorded(file, opened, problems, fields=fields) for file in recorded or ())
        outcome, estimate = Outcome(), []
        if instances and model:
            readable = _Instances(instances, fields, limit, problems)
            sampler = Sampler(
                readable,
                model,
                opened,
                samples=samples,
                plan=as_plan_option(plan, allow_downgrade),
                examples=None if examples is None else InContext.load(examples, k=shots),
                limits=limits_of(max_cost=max_cost, concurrency=concurrency, per_minute=per_minute, timeout_s=timeout),
                logprobs=logprobs,
                retry_failed=retry_failed,
                api_base=api_base,
                params={name: value for name, value in params.items() if value is not None},
            )
            estimate = sampler.estimate()
            if not any(row.stored or row.samples or row.failed_before for row in estimate):
                note_problems(problems.listed, problems.count)
                raise InputError(f"no instance in {', '.join(instances)}")
            if not dry_run:
                outcome = with_progress("sampling", sampler.run, sum(row.samples for row in estimate))
        result = {
            "store": store,
            "estimate": [asdict(row) for row in estimate],
            "recorded": taken_in,
            "outcome": None if dry_run else asdict(outcome),
            "stored": opened.counts(),
            "spent": opened.spent(),
            "failed": sum(1 for _ in opened.failures()),
            "left_out": problems.count,
        }
    note_problems(problems.listed, problems.count)
    if json:
        print_json(result)
    elif dry_run:
        _print_estimate(estimate, max_tokens)
    else:
        _print_stored(result)
    for name, why in outcome.stopped.items():
        note(f"{name}: stopped: {one_line(why, 300)}")
    if result["failed"] and not dry_run:
        note(f"{result['failed']} samples did not come; `cappy data show {store}` lists them, another run asks again")
    if outcome.stopped:
        raise typer.Exit(3)


@contextmanager
def _opened(path: str, dry_run: bool) -> Iterator[SampleStore]:
    """The store; for a dry run only to read, and none is made."""
    with ExitStack() as stack:
        if dry_run and not Path(path).exists():
            path = str(Path(stack.enter_context(TemporaryDirectory())) / "samples.db")
        yield stack.enter_context(SampleStore(path, write=not dry_run or not Path(path).exists()))


class _Instances:
    """The files' instances, anew each time; what is wrong with them is told once."""

    def __init__(self, files: list[str], fields: dict[str, str], limit: int | None, problems: Problems) -> None:
        self._files, self._fields, self._limit = files, fields, limit
        self._problems: Problems = problems

    def __call__(self) -> Iterator[Instance]:
        problems, self._problems = self._problems, Problems()
        for file in self._files:
            rows = read_instances(file, problems, fields=self._fields)
            yield from (instance for _, instance in islice(rows, self._limit))


def limits_of(**given: Any) -> Limits:
    """The limits that options give. Raises InputError."""
    try:
        return Limits(**given)
    except ValidationError as error:
        raise InputError(validation_message(error)) from error


def with_progress(label: str, run: Callable[[OnProgress], Outcome], total: int) -> Outcome:
    """Paid calls under a bar that shows what they cost and how many failed."""
    with progress(label) as advance:
        seen = 0

        def told(outcome: Outcome) -> None:
            nonlocal seen
            failed = f", {outcome.failures} failures" if outcome.failures else ""
            advance(outcome.answers - seen, total, f"{dollars(outcome.cost)}{failed}")
            seen = outcome.answers

        advance(0, total)
        return run(told)


def _print_estimate(estimate: list[Estimate], max_tokens: int | None) -> None:
    rows = [(row.model, str(row.stored), str(row.samples), str(row.calls), dollars(row.cost)) for row in estimate]
    columns = ("model", "stored", "to ask", "calls", "cost")
    print_table("what a run would do", columns, rows, right=(1, 2, 3, 4))
    answers = f"at most {max_tokens}" if max_tokens else f"{ASSUMED_TOKENS}"
    note(f"cost is an estimate: a prompt token for 4 bytes, {answers} tokens an answer unless the plan has a limit")
    if skipped := sum(row.failed_before for row in estimate):
        note(f"{skipped} samples failed for good before and are left out; --retry-failed asks for them again")


def _print_stored(result: dict[str, Any]) -> None:
    rows = [(model, str(count)) for model, count in result["stored"].items()]
    spent = dollars(result["spent"])
    print_table(f"{Path(result['store']).name}: {spent} spent", ("model", "samples"), rows, right=(1,))

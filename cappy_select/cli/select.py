"""`cappy select`: the best of several models' answers."""

from __future__ import annotations

import json as jsonlib
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from cappy_select.ask.in_context import InContext
from cappy_select.ask.sampling import Plan
from cappy_select.cli.output import (
    AllowDowngrade,
    ApiBase,
    ExamplesFile,
    Json,
    MaxTokens,
    PlanName,
    Revision,
    Samples,
    ScorerSource,
    Shots,
    Temperature,
    new_app,
    note,
    one_line,
    print_json,
    print_table,
)
from cappy_select.core.characters import is_blank
from cappy_select.core.errors import InputError
from cappy_select.core.json_text import loads
from cappy_select.core.types import Prompt, Selection
from cappy_select.scorer import Scorer
from cappy_select.select.config import SelectorConfig
from cappy_select.select.gates import Gate, JsonSchema, Matches
from cappy_select.select.selector import Selector
from cappy_select.select.strategies import NAMES, strategy_named
from cappy_select.text.extractors import extractor

app = new_app()

_DEFAULT = SelectorConfig()


def _limit(name: str, *other_names: str) -> Any:
    """The option of a limit, as `SelectorConfig` describes it."""
    said = (SelectorConfig.model_fields[name].description or name).replace("`", "")
    return typer.Option(f"--{name.replace('_', '-')}", *other_names, help=f"{said[0].upper()}{said[1:]}.")


@app.command()
def select(
    prompt: Annotated[str, typer.Argument(help="The prompt; '-' reads it from standard input.")],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="A LiteLLM model name, openai:MODEL, transformers:PATH or replay:FILE[#MODEL]; may be repeated.",
        ),
    ],
    samples: Samples = None,
    plan: PlanName = None,
    allow_downgrade: AllowDowngrade = False,
    messages: Annotated[bool, typer.Option("--messages", help="The prompt is a JSON list of OpenAI messages.")] = False,
    deadline_s: Annotated[float, _limit("deadline_s", "--deadline")] = _DEFAULT.deadline_s,
    grace_s: Annotated[float | None, _limit("grace_s", "--grace")] = _DEFAULT.grace_s,
    min_usable: Annotated[int, _limit("min_usable")] = _DEFAULT.min_usable,
    max_cost: Annotated[float | None, _limit("max_cost")] = _DEFAULT.max_cost,
    max_candidates: Annotated[int, _limit("max_candidates")] = _DEFAULT.max_candidates,
    max_retries: Annotated[int, _limit("max_retries")] = _DEFAULT.max_retries,
    max_concurrency: Annotated[int, _limit("max_concurrency")] = _DEFAULT.max_concurrency,
    strategy: Annotated[str, typer.Option(help=f"How the winner is found: {', '.join(NAMES)}.")] = "argmax",
    extract: Annotated[
        str, typer.Option(help="What votes compare: text, number, line, boxed, after:MARKER, regex:PATTERN.")
    ] = "text",
    stop_when: Annotated[float | None, _limit("stop_when")] = _DEFAULT.stop_when,
    abstain_below: Annotated[float | None, _limit("abstain_below")] = _DEFAULT.abstain_below,
    json_schema: Annotated[
        str | None, typer.Option(help="A file; answers must be JSON that this schema allows.")
    ] = None,
    match: Annotated[str | None, typer.Option(help="A regular expression that an answer must match.")] = None,
    examples: ExamplesFile = None,
    shots: Shots = 4,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    api_base: ApiBase = None,
    scorer: ScorerSource = None,
    revision: Revision = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also print all candidates, on stderr.")] = False,
    json: Json = False,
) -> None:
    """Ask models for several answers and print the best one, verbatim.

    Keys come from each provider's own environment variable (OPENAI_API_KEY, ANTHROPIC_API_KEY, ...).
    """
    text = prompt
    if prompt == "-":
        text = sys.stdin.read().removesuffix("\n") if sys.stdin else ""
    if is_blank(text):
        raise InputError("the prompt is empty")
    params: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    selector = Selector(
        model,
        samples=samples,
        plan=as_plan_option(plan, allow_downgrade),
        scorer=Scorer.load(scorer, revision=revision),
        deadline_s=deadline_s,
        grace_s=grace_s,
        min_usable=min_usable,
        max_cost=max_cost,
        max_candidates=max_candidates,
        max_retries=max_retries,
        max_concurrency=max_concurrency,
        strategy=strategy_named(strategy, extract=extractor(extract)),
        stop_when=stop_when,
        abstain_below=abstain_below,
        gates=_gates(json_schema, match),
        examples=None if examples is None else InContext.load(examples, k=shots),
        api_base=api_base,
        params={name: value for name, value in params.items() if value is not None},
    )
    selection = selector.select(_messages(text) if messages else text)
    if json:
        print_json(as_json(selection))
        return
    if verbose:
        print_selection(selection, to_stderr=True)
    cut = selection.instruction.tokens_cut or max(candidate.tokens_cut for candidate in selection.candidates)
    if cut:
        note("prompt and answers did not all fit the scorer's window and were cut (--json says how much)")
    for downgrade in selection.downgrades:
        left_out = ", ".join(f"{name}={value}" for name, value in downgrade.left_out.items())
        note(f"{downgrade.model} can't do {left_out}: {downgrade.answers} answers were sampled without")
    for reason, count in Counter((f.model, f.kind, f.message) for f in selection.failures).items():
        model_name, kind, message = reason
        note(f"{model_name}: {kind}: {one_line(message)}" + (f" (×{count})" if count > 1 else ""))
    print(selection.text or jsonlib.dumps(selection.best.message, ensure_ascii=False))


def as_plan_option(name: str | None, allow_downgrade: bool) -> Plan | None:
    """What --plan and --allow-downgrade say together. Raises InputError."""
    if name is None:
        if allow_downgrade:
            raise InputError("--allow-downgrade is about a --plan, and there is none")
        return None
    plan = Plan.load(name)
    return plan.model_copy(update={"on_unsupported": "downgrade"}) if allow_downgrade else plan


def _gates(schema_file: str | None, pattern: str | None) -> list[Gate]:
    gates: list[Gate] = [] if pattern is None else [Matches(pattern)]
    if schema_file is not None:
        try:
            schema = loads(Path(schema_file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"--json-schema: {schema_file} can't be read: {error}") from error
        if not isinstance(schema, dict):
            raise InputError(f"--json-schema: {schema_file} holds no JSON object")
        gates.append(JsonSchema(schema))
    return gates


def _messages(text: str) -> Prompt:
    try:
        value: Any = loads(text)
    except ValueError as error:
        raise InputError(f"--messages: the prompt is not JSON: {error}") from error
    if not isinstance(value, list):
        raise InputError(f"--messages: expected a list of messages, got {type(value).__name__}")
    return value


def as_json(selection: Selection) -> dict[str, Any]:
    """The selection as it is, with the winner's text in front."""
    return {"text": selection.text} | selection.model_dump(mode="json")


def print_selection(selection: Selection, *, to_stderr: bool = False) -> None:
    """Every candidate, best first, then what failed."""
    rows = [
        (
            "—" if candidate.score is None else f"{candidate.score:.3f}",
            candidate.model,
            f"{candidate.latency_s:.2f}",
            dollars(candidate.cost),
            one_line(candidate.text, 72) if candidate.rejected is None else f"rejected: {candidate.rejected}",
        )
        for candidate in selection.candidates
    ]
    rows += [
        (
            "failed",
            failure.model,
            f"{failure.latency_s:.2f}",
            dollars(failure.cost),
            f"{failure.kind}: {one_line(failure.message, 100)}",
        )
        for failure in selection.failures
    ]
    failed = len(selection.failures)
    counts = f"{len(selection.candidates)} candidates, {failed} failed call{'' if failed == 1 else 's'}"
    title = f"{counts}, {dollars(selection.cost)} in all"
    print_table(title, ("score", "model", "seconds", "cost", "answer"), rows, right=(0, 2, 3), to_stderr=to_stderr)


def dollars(cost: float | None) -> str:
    """A price for people; unknown is not 0."""
    return "unknown" if cost is None else f"${cost:.6f}"

"""Several models answer, what is not usable is filtered out, the best of the rest is returned.

    python examples/multi_llm_filter.py -m openai/gpt-5-mini -m anthropic/claude-haiku-4-5 "Name a river in Peru."

The answers must be JSON of a given shape. Stragglers get two seconds once three usable answers are there, and all
of it may cost a cent. Keys come from each provider's environment variable.
"""

from __future__ import annotations

import argparse

from cappy_select import (
    JsonSchema,
    NoCandidates,
    Selector,
)

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "minLength": 1}},
    "required": ["answer"],
    "additionalProperties": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("question")
    parser.add_argument("-m", "--model", action="append", required=True)
    parser.add_argument("--api-base", help="an OpenAI-compatible server")
    parser.add_argument("--max-cost", type=float, help="dollars; needs models with known prices")
    options = parser.parse_args()
    selector = Selector(
        options.model,
        samples=2,
        gates=[JsonSchema(SCHEMA)],
        min_usable=min(3, 2 * len(options.model)),
        grace_s=2.0,
        max_cost=options.max_cost,
        api_base=options.api_base,
    )
    prompt = f'{options.question}\nAnswer with JSON alone: {{"answer": "..."}}'
    try:
        selection = selector.select(prompt)
    except NoCandidates as error:
        raise SystemExit(f"no answer: {error}") from None
    for candidate in selection.candidates:
        print(f"{candidate.model}: {candidate.rejected or f'{candidate.score:.3f}'}: {candidate.text}")
    for failure in selection.failures:
        print(f"{failure.model}: failed: {failure.kind}: {failure.message}")
    print(f"best: {selection.text}")


if __name__ == "__main__":
    main()

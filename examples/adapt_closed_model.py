"""Teach the scorer a task from instances of it; the LLM is only ever asked, as any API allows.

    python examples/adapt_closed_model.py tickets.jsonl -m openai/gpt-5-mini --out runs/tickets

A line of the file is an instance: {"id": "1", "instruction": "Which team? My parcel is late.", "references": ["post"]}.
Kill it and run it again: it goes on, and no stored answer is paid for twice. At the end the adapted scorer picks among
fresh answers to a question of its own.
"""

from __future__ import annotations

import argparse

from cappy_select import (
    Plan,
    Sampling,
    Selector,
)
from cappy_select.adapt import (
    AdaptConfig,
    adapt,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("instances", help="JSONL of id, instruction, references")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--label", default="exact", help="what makes an answer right; see docs/data.md")
    parser.add_argument("--scorer", help="what to adapt; default: the embedded scorer")
    parser.add_argument("--api-base", help="an OpenAI-compatible server")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the trainer's configuration")
    parser.add_argument("--ask", help="a question to answer with the adapted scorer")
    options = parser.parse_args()

    plan = Plan(samplings=(Sampling(n=4, seed=1),))  # a seed, so that another run asks for the same answers
    config = AdaptConfig(
        models=(options.model,), plan=plan, label=options.label, scorer=options.scorer, settings=tuple(options.set)
    )
    done = adapt([options.instances], options.out, config, api_base=options.api_base, on_stage=print)
    if done.report is None:
        raise SystemExit(f"not finished: {done.stopped or 'stopped'}; the same command goes on")
    for way in done.report.ways:
        print(f"{way.name:12} {100 * way.quality:5.1f} %   over the first answer: {way.over_first}")
    if options.ask:
        selector = Selector([options.model], plan=plan, scorer=f"{options.out}/bundle", api_base=options.api_base)
        print(f"answer: {selector.select(options.ask).text}")


if __name__ == "__main__":
    main()

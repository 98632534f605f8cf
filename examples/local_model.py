"""A model on this machine, asked as the paper asks: 17 candidates, ranked by the scorer and by the model itself.

    python examples/local_model.py google/flan-t5-small "Name a river in Peru."

Needs `pip install 'cappy-select[local]'`. `--adapter` takes a PEFT adapter: a finetuned or prompt-tuned model is one
more provider.
"""

from __future__ import annotations

import argparse

from cappy_select import (
    Selector,
    SelfScore,
    TransformersProvider,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", help="a folder or a hub id")
    parser.add_argument("prompt")
    parser.add_argument("--adapter", help="a PEFT adapter")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = TransformersProvider(options.path, adapter=options.adapter, max_source_tokens=512, seed=options.seed)
    selection = Selector([model], plan="paper", deadline_s=600).select(options.prompt)
    for candidate in selection.candidates:
        print(f"{candidate.score:7.3f} {candidate.logprob_sum:8.2f}  {candidate.text!r:.90}")
    likeliest = SelfScore("sum").order(selection.candidates)[0]
    print(f"{len(selection.candidates)} candidates")
    print(f"the scorer's choice:      {selection.text!r}")
    print(f"the model's own (sum):    {likeliest.text!r}")


if __name__ == "__main__":
    main()

"""In-context examples: the model sees the examples most like the question, the scorer the question alone.

    python examples/in_context.py -m openai/gpt-5-mini "A dozen eggs costs 3 dollars. What do 4 eggs cost?"

Needs `pip install 'cappy-select[icl]'` for choosing by BM25.
"""

from __future__ import annotations

import argparse

from cappy_select import (
    Example,
    InContext,
    Selector,
    Vote,
)

POOL = (
    Example(input="A box holds 12 pencils. How many do 5 boxes hold?", output="12 * 5 = 60. The answer is 60."),
    Example(input="Nine cups cost 27 dollars. What does a cup cost?", output="27 / 9 = 3. The answer is 3."),
    Example(input="Ann is 7 and Ben is 4 years older. How old is Ben?", output="7 + 4 = 11. The answer is 11."),
    Example(input="A train goes 60 km an hour. How far in 3 hours?", output="60 * 3 = 180. The answer is 180."),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("question")
    parser.add_argument("-m", "--model", action="append", required=True)
    parser.add_argument("--api-base", help="an OpenAI-compatible server")
    options = parser.parse_args()
    examples = InContext(pool=POOL, k=2, choose="bm25", definition="Solve the problem, step by step.")
    selector = Selector(
        options.model,
        samples=4,
        examples=examples,
        strategy=Vote("after:The answer is"),
        api_base=options.api_base,
    )
    selection = selector.select(options.question)
    print(f"scored on: {selection.instruction.text}")
    print(f"chosen by {selection.strategy}: {selection.text}")


if __name__ == "__main__":
    main()

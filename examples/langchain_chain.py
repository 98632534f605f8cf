"""Two LangChain chains answer the same question in different ways; the better answer is returned.

    python examples/langchain_chain.py -m openai/gpt-5-mini -m anthropic/claude-haiku-4-5 "Name two rivers in Peru."

Each chain asks its models twice and goes on with the best answer; then the chains are raced. Needs
`pip install 'cappy-select[langchain]'`; keys come from each provider's environment variable.
"""

from __future__ import annotations

import argparse

from langchain_cappy import CappySelector, ChatCappy
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from cappy_select import (
    NoCandidates,
    Scorer,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("question")
    parser.add_argument("-m", "--model", action="append", required=True)
    parser.add_argument("--api-base", help="an OpenAI-compatible server")
    options = parser.parse_args()

    scorer = Scorer.load()
    model = ChatCappy(models=options.model, samples=2, scorer=scorer, api_base=options.api_base)
    plain = ChatPromptTemplate.from_template("{question}")
    brief = ChatPromptTemplate.from_messages([("system", "Answer in one sentence."), ("human", "{question}")])
    chains = {"plain": plain | model | StrOutputParser(), "brief": brief | model | StrOutputParser()}

    race = CappySelector.from_runnables(chains, scorer=scorer, grace_s=5, include_scores=True)
    try:
        result = race.invoke({"question": options.question})
    except NoCandidates as error:
        raise SystemExit(f"no answer: {error}") from None
    for candidate in result["candidates"]:
        print(
            f"{candidate['model']}: {candidate['rejected'] or format(candidate['score'], '.3f')}: {candidate['output']}"
        )
    for failure in result["failures"]:
        print(f"{failure['model']}: failed: {failure['message']}")
    print(f"best: {result['output']}")


if __name__ == "__main__":
    main()

"""An agent whose every step is the best of several: candidates with wrong tool calls never reach the tools.

    pip install langchain-openai
    python examples/langchain_agent.py "How many people live in Iquitos and Pucallpa together?" -m openai:gpt-5-mini

The model is any that `init_chat_model` knows; its key comes from the provider's environment variable.
"""

from __future__ import annotations

import argparse

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_cappy import CappyMiddleware
from langchain_core.messages import AIMessage

PEOPLE = {"Iquitos": 471_000, "Pucallpa": 326_000, "Arequipa": 1_008_000}


def population(city: str) -> int:
    """Inhabitants of a city of Peru."""
    return PEOPLE[city]


def add(first: int, second: int) -> int:
    """The sum of two numbers."""
    return first + second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("question")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--api-base", help="an OpenAI-compatible server")
    parser.add_argument("--temperature", type=float, help="of the candidates; not every model takes one")
    options = parser.parse_args()
    model = init_chat_model(options.model, **({"base_url": options.api_base} if options.api_base else {}))
    best_of_three = CappyMiddleware(samples=3, temperature=options.temperature)
    agent = create_agent(model, [population, add], middleware=[best_of_three])
    for message in agent.invoke({"messages": [{"role": "user", "content": options.question}]})["messages"]:
        print(f"{message.type}: {message.text}")
        if isinstance(message, AIMessage):
            for call in message.tool_calls:
                print(f"    {call['name']}({call['args']})")
            for loser in message.response_metadata["cappy_select"]["candidates"][1:]:
                print(f"    not taken: {loser['rejected'] or loser['score']}")


if __name__ == "__main__":
    main()

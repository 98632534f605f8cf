"""A panel of models behind one LiteLLM model name: the best of their answers, streamed.

    python examples/litellm_custom_provider.py -m openai/gpt-5-mini -m openai/gpt-5-nano "Name a river in Peru."

Keys come from each provider's environment variable. For a LiteLLM proxy see examples/litellm_proxy/.
"""

from __future__ import annotations

import argparse

import litellm
import litellm_cappy
import openai

from cappy_select import (
    Selector,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("question")
    parser.add_argument("-m", "--model", action="append", required=True)
    parser.add_argument("--api-base", help="an OpenAI-compatible server")
    options = parser.parse_args()

    litellm_cappy.register({"panel": Selector(options.model, samples=2, api_base=options.api_base)})
    messages = [{"role": "user", "content": options.question}]
    weighed = {}
    try:
        for chunk in litellm.completion(model="cappy/panel", messages=messages, stream=True):
            print(chunk.choices[0].delta.content or "", end="", flush=True)
            weighed = getattr(chunk, "cappy", weighed)
    except openai.APIError as error:  # LiteLLM's errors are OpenAI's too
        raise SystemExit(f"no answer: {error}") from None
    print(f"\n{weighed['model']}, score {weighed['score']:.3f}, best of {len(weighed['candidates'])}")


if __name__ == "__main__":
    main()

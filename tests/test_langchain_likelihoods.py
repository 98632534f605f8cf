"""Log-probabilities of LangChain models, in each partner package's form."""

from __future__ import annotations

import math

import pytest
from langchain_cappy import ChatCappy, LangChainProvider
from langchain_cappy.likelihoods import likelihood_of
from langchain_core.messages import AIMessage, AIMessageChunk
from test_langchain_endings import QUESTION, Saying, SayingInPieces

from cappy_select import Candidate, Request, SelfScore


def tokens(*values, name="logprob"):
    return [{"token": f"t{place}", name: value} for place, value in enumerate(values)]


def answer(metadata, content="Hello", usage=None):
    return AIMessage(content, response_metadata=metadata, usage_metadata=usage)


@pytest.mark.parametrize(
    "metadata",
    [
        {"logprobs": {"content": tokens(-1.0, -2.0), "refusal": None}},  # OpenAI, Groq, DeepSeek, Watsonx
        {"logprobs": tokens(-1.0, -2.0)},  # Ollama
        {"logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0]}},  # Together, xAI
        {"logprobs": {"token_logprobs": [-1, -2]}},
        {"logprobs_result": tokens(-1.0, -2.0)},  # Vertex
        {"logprobs_result": {"chosen_candidates": tokens(-1.0, -2.0, name="log_probability")}},  # Gemini
        {"logprobs": None, "logprobs_result": tokens(-1.0, -2.0)},
    ],
)
def test_sum_and_mean_are_found_in_each_packages_form(metadata):
    found = likelihood_of(answer(metadata))
    assert (found.total, found.mean) == (-3.0, -1.5)
    assert [token["logprob"] for token in found.logprobs["content"]] == [-1.0, -2.0]


def test_the_responses_api_has_them_in_its_content():
    blocks = [{"type": "text", "text": "a b", "logprobs": tokens(-1.0, -2.0)}, {"type": "text", "text": ""}]
    assert likelihood_of(answer({}, blocks)).total == -3.0


def test_geminis_mean_is_one_over_the_answer_without_its_thinking():
    usage = {
        "input_tokens": 5, "output_tokens": 14, "total_tokens": 19, "output_token_details": {"reasoning": 10},
    }  # fmt: skip
    assert likelihood_of(answer({"avg_logprobs": -0.5}, usage=usage))[1:] == (-2.0, -0.5)
    assert likelihood_of(answer({"avg_logprobs": -0.5}))[1:] == (None, -0.5)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 0.7, "-1", True])
def test_a_token_without_a_number_makes_no_sum(value):
    for metadata in (
        {"logprobs": {"content": tokens(-1.0, value)}},
        {"logprobs": {"token_logprobs": [value, -1.0]}},
        {"logprobs": tokens(value)},
        {"avg_logprobs": value},
    ):
        assert likelihood_of(answer(metadata))[1:] == (None, None), metadata


@pytest.mark.parametrize(
    "form", [[], {}, "none", 3, {"content": []}, {"content": None}, {"token_logprobs": None}, True]
)
def test_what_is_no_form_says_nothing_and_costs_no_answer(default, form):
    said = answer({"logprobs": form})
    assert likelihood_of(said) == (None, None, None)
    assert ChatCappy(models=[Saying(said=[said])], samples=1, scorer=default).invoke(QUESTION).content == "Hello"


@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_self_scoring_goes_by_them(default, kind):
    models = [
        Saying(said=[answer({"logprobs": tokens(-3.0, -1.0)}, "The Amazon")]),
        Saying(said=[answer({"logprobs": {"token_logprobs": [-0.5]}}, "No.")]),
        Saying(said=[answer({"logprobs": tokens(0.0, math.nan)}, "The Nile")]),
    ]
    chat = ChatCappy(models=models, samples=1, scorer=default, strategy=SelfScore(kind))
    assert chat.invoke(QUESTION).content == "No."


async def test_those_of_a_streamed_answer_are_those_of_all_pieces():
    pieces = [
        AIMessageChunk(content="The ", response_metadata={"logprobs": {"content": tokens(-1.0), "refusal": None}}),
        AIMessageChunk(content="Amazon", response_metadata={"logprobs": {"content": tokens(-2.0, -0.5)}}),
    ]
    provider = LangChainProvider(SayingInPieces(said=pieces))
    request = Request(messages=({"role": "user", "content": QUESTION},))
    (candidate,) = [piece async for piece in provider.stream(request) if isinstance(piece, Candidate)]
    assert candidate.logprob_sum == -3.5

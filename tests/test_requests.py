"""What a Selector asks of its models: plans, in-context examples, prices and log-probabilities."""

from __future__ import annotations

import pytest
from loopback import Reply

from cappy_select import (
    Candidate,
    Example,
    InContext,
    InputError,
    Plan,
    QualityCost,
    Sampling,
    Selector,
    SelfScore,
)


def test_a_plan_says_what_is_asked_and_the_selection_how(loopback, provider, tiny):
    loopback.gives_n = True
    loopback.replies["m"] = [Reply(text=text) for text in "abcdef"]
    plan = Plan(
        name="mine",
        samplings=(Sampling(n=2, temperature=0.5, seed=3), Sampling(temperature=1.0)),
        overrides={"openai/other": (Sampling(max_tokens=9),)},
    )
    selection = Selector([provider("m"), provider("other")], plan=plan, scorer=tiny).select("q")
    asked = [{k: v for k, v in r.items() if k != "messages"} for r in loopback.requests]
    assert sorted(asked, key=str) == sorted(
        [
            {"model": "m", "n": 2, "temperature": 0.5, "seed": 3},
            {"model": "m", "temperature": 1.0},
            {"model": "other", "max_tokens": 9},
        ],
        key=str,
    )
    assert selection.plan == "mine"
    by_index = sorted(selection.candidates, key=lambda c: c.index)
    assert [c.sampling for c in by_index] == [
        *[{"temperature": 0.5, "seed": 3}] * 2, {"temperature": 1.0}, {"max_tokens": 9},
    ]  # fmt: skip


def test_what_a_model_cannot_do_is_an_error_before_any_call_or_a_recorded_downgrade(loopback, provider, tiny):
    with pytest.raises(InputError, match=r"openai/m can't do top_k=0, min_tokens=3"):
        Selector([provider("m")], plan="paper", scorer=tiny)
    allowed = Plan.preset("paper").model_copy(update={"on_unsupported": "downgrade"})
    selection = Selector([provider("m")], plan=allowed, scorer=tiny).select("q")
    assert len(selection.candidates) == 17
    assert sum(downgrade.answers for downgrade in selection.downgrades) == 17
    assert selection.downgrades[-1].left_out == {"beams": 4, "min_tokens": 3}
    with pytest.raises(InputError, match="top_k"):
        Selector([provider("m")], scorer=tiny).select("q", top_k=4)
    assert all("top_k" not in request for request in loopback.requests)
    able = provider("m", supports={"top_k"})
    Selector([able], samples=1, scorer=tiny).select("q", top_k=4)
    assert loopback.requests[-1]["top_k"] == 4


def test_self_scoring_asks_for_log_probabilities(loopback, provider, direct, tiny):
    loopback.replies["a"] = [Reply(text="unlikely", logprobs=[-3.0, -3.0])]
    loopback.replies["b"] = [Reply(text="likely", logprobs=[-0.5, -0.5])]
    selection = Selector([provider("a"), direct("b")], samples=1, scorer=tiny, strategy=SelfScore("mean")).select("q")
    assert selection.text == "likely"
    assert [c.logprob_sum for c in selection.candidates] == [-1.0, -6.0]
    assert all(request["logprobs"] is True for request in loopback.requests)


def test_in_context_examples_are_for_the_models_and_for_the_scorer_only_if_told(loopback, provider, tiny):
    pool = (Example(input="Name a town.", output="Nauta."),)
    selection = Selector([provider("m")], samples=1, scorer=tiny, examples=InContext(pool=pool)).select("Name a river.")
    assert [m["content"] for m in loopback.requests[0]["messages"]] == ["Name a town.", "Nauta.", "Name a river."]
    assert selection.instruction.text == "Name a river."
    seen = InContext(pool=pool, scorer_sees=True)
    selection = Selector([provider("m")], samples=1, scorer=tiny, examples=seen).select("Name a river.")
    assert "Nauta." in selection.instruction.text


def test_in_context_examples_fit_each_models_window(loopback, provider, tiny):
    class Small:
        model = "small"

        def __init__(self):
            self.seen = []

        def max_prompt_tokens(self, max_tokens):
            return 12 - max_tokens

        def count_tokens(self, messages):
            return sum(len(message["content"].split()) for message in messages)

        async def complete(self, request):
            self.seen.append(request.messages)
            return [Candidate(model="small", message={"content": "yes"})]

    pool = tuple(Example(input=f"Name town {n}.", output="Nauta.") for n in range(5))
    small = Small()
    selector = Selector([small, provider("m")], samples=1, scorer=tiny, max_tokens=2, examples=InContext(pool=pool))
    assert selector.select("q").examples == {"small": 2, "openai/m": 4}
    assert len(small.seen[0]) == 5  # 3 + 1 words an example, 1 for the prompt, 2 for the answer: two fit
    assert len(loopback.requests[0]["messages"]) == 9


def test_a_money_limit_holds_and_needs_prices(loopback, provider, tiny):
    loopback.replies["m"] = [Reply(text="ok", usage={"prompt_tokens": 10, "completion_tokens": 1000}, delay_s=0.1)]
    selector = Selector(
        [provider("m")], plan=Plan(samplings=(Sampling(),) * 5), scorer=tiny, max_cost=0.005, max_tokens=1000
    )
    selection = selector.select("q")
    assert selection.cost <= 0.005
    assert [f.kind for f in selection.failures] == ["budget"] * 3
    unpriced = provider("m", input_cost_per_token=None, output_cost_per_token=None)
    with pytest.raises(InputError, match="max_cost needs the price of openai/m"):
        Selector([unpriced], scorer=tiny, max_cost=1.0)
    with pytest.raises(InputError, match="needs the price"):
        Selector([unpriced], scorer=tiny, strategy=QualityCost(per_dollar=1))

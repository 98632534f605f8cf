from __future__ import annotations

import asyncio
import time

import pytest
import torch
from tiny import WORDS, make_gpt2, make_t5
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from cappy_select import (
    InputError,
    ProviderError,
    Request,
    Selector,
    SelfScore,
    TransformersProvider,
)

PROMPT = " ".join(WORDS[:12])
ASK = ({"role": "user", "content": PROMPT},)


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return make_t5(tmp_path_factory.mktemp("models") / "tiny-t5")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return make_gpt2(tmp_path_factory.mktemp("models") / "tiny-gpt2")


def by_hand(model, tokenizer, prompt, answer):
    """Log-likelihoods of the answer's tokens, as anyone would compute them with transformers."""
    source = tokenizer(prompt, return_tensors="pt")["input_ids"]
    target = torch.tensor([answer])
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            logits = model(input_ids=source, labels=target).logits
        else:
            logits = model(input_ids=torch.cat([source, target], 1)).logits[:, source.shape[1] - 1 : -1]
    return torch.log_softmax(logits, -1).gather(2, target[:, :, None])[0, :, 0]


def test_the_papers_plan_gives_17_candidates_whose_likelihoods_are_those_of_transformers(t5, tiny):
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(t5).eval(), AutoTokenizer.from_pretrained(t5)
    provider = TransformersProvider(t5, max_source_tokens=512, seed=3)
    selection = Selector([provider], plan="paper", scorer=tiny, strategy=SelfScore("sum")).select(PROMPT)
    assert len(selection.candidates) == 17
    assert selection.failures == ()
    for candidate in selection.candidates:
        answer = [token["id"] for token in candidate.logprobs["content"]]
        assert 3 <= len(answer) <= 64
        expected = by_hand(model, tokenizer, PROMPT, answer)
        assert candidate.logprob_sum == pytest.approx(float(expected.sum()), abs=1e-4)
        assert candidate.logprob_mean == pytest.approx(float(expected.mean()), abs=1e-4)
        assert candidate.text == tokenizer.decode(answer, skip_special_tokens=True)
        assert candidate.finish_reason == ("stop" if answer[-1] == 1 else "length")
    sums = [candidate.logprob_sum for candidate in selection.candidates]
    assert selection.best.logprob_sum == max(sums)
    sampled = sorted(selection.candidates, key=lambda candidate: candidate.index)[:16]
    assert len({candidate.text for candidate in sampled}) == 16  # one seed, and yet no two alike
    assert [candidate.sampling["seed"] for candidate in sampled] == [3] * 4 + [7] * 4 + [11] * 4 + [15] * 4
    by_mean = Selector([provider], plan="paper", scorer=tiny, strategy=SelfScore("mean")).select(PROMPT)
    assert by_mean.best.logprob_mean == max(c.logprob_mean for c in by_mean.candidates)
    assert (selection.cost, selection.plan, selection.strategy) == (0.0, "paper", "self_score_sum")


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
async def test_the_likelihood_of_any_response_equals_that_by_hand(kind, request):
    folder = request.getfixturevalue(kind)
    provider = TransformersProvider(folder)
    auto = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    model, tokenizer = auto.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    responses = ["the river begins", "", "yes no maybe yes"]
    for response, found in zip(responses, await provider.log_likelihoods(PROMPT, responses), strict=True):
        answer = [*tokenizer(response, add_special_tokens=False)["input_ids"], 1]
        expected = by_hand(model, tokenizer, PROMPT, answer)
        assert found.tokens == answer
        assert found.sum == pytest.approx(float(expected.sum()), abs=1e-4)
        assert found.mean == pytest.approx(float(expected.mean()), abs=1e-4)


async def ask(provider, n=1, **params):
    return await provider.complete(Request(messages=ASK, n=n, params=params))


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
async def test_sampling_parameters_do_what_they_say(kind, request):
    provider = TransformersProvider(request.getfixturevalue(kind), max_tokens=8)
    greedy = [c.text for c in await ask(provider, temperature=0)]
    assert [c.text for c in await ask(provider, temperature=0)] == greedy
    assert [c.text for c in await ask(provider, top_k=1)] == greedy
    seeded = [c.text for c in await ask(provider, n=4, seed=5)]
    assert [c.text for c in await ask(provider, n=4, seed=5)] == seeded
    assert len(set(seeded)) > 1
    assert [c.text for c in await ask(provider, n=4, seed=6)] != seeded
    assert [c.text for c in await ask(provider, beams=1)] == greedy  # a search of one beam draws nothing
    copies = await ask(provider, n=3, temperature=0)
    assert [c.text for c in copies] == greedy * 3
    assert [c.usage.completion_tokens > 0 for c in copies] == [True, False, False]  # it was computed once
    beams = await ask(provider, n=3, beams=4)
    assert len({c.text for c in beams}) == 3
    (best,) = await ask(provider, beams=4)
    assert best.logprob_sum >= (await ask(provider, temperature=0))[0].logprob_sum - 1e-5
    (long,) = await ask(provider, max_tokens=5, min_tokens=5)
    assert long.usage.completion_tokens == 5


async def test_a_seed_leaves_the_programs_own_random_numbers_alone(t5):
    provider = TransformersProvider(t5, max_tokens=4)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    await ask(provider, seed=9)
    assert torch.equal(torch.rand(3), expected)


async def test_what_does_not_fit_is_a_failure_or_cut_and_said(t5, gpt2):
    causal = TransformersProvider(gpt2, max_tokens=60)
    with pytest.raises(ProviderError) as caught:
        await ask(causal)
    assert caught.value.kind == "context_window"
    assert (causal.max_prompt_tokens(None), causal.max_prompt_tokens(10)) == (4, 54)
    assert TransformersProvider(gpt2).max_prompt_tokens(None) == 64 - 256
    with pytest.raises(ProviderError, match="the model has 64"):
        await causal.log_likelihoods(PROMPT, ["the river " * 40])
    cut = TransformersProvider(t5, max_source_tokens=5, max_tokens=4)
    assert (cut.max_prompt_tokens(None), TransformersProvider(t5).max_prompt_tokens(10)) == (5, 512)
    (candidate,) = await ask(cut, temperature=0)
    assert candidate.response_fields == {"prompt_tokens_cut": 8}
    assert candidate.usage.prompt_tokens == 5


async def test_a_parameter_it_has_not_is_refused(t5):
    with pytest.raises(ProviderError, match="has no stop, tools"):
        await ask(TransformersProvider(t5), tools=[], stop="x")
    with pytest.raises(InputError, match="no argument 'top_n': did you mean 'top_p'"):
        TransformersProvider(t5, top_n=3)
    with pytest.raises(InputError, match="not stop"):
        TransformersProvider(t5, params={"stop": "x"})


async def test_seeds_hold_while_another_model_draws(t5, gpt2):
    first, second = TransformersProvider(t5, max_tokens=12), TransformersProvider(gpt2, max_tokens=12)
    alone = [c.text for c in await ask(first, n=4, seed=5)]
    for _ in range(5):
        together = await asyncio.gather(ask(first, n=4, seed=5), ask(second, n=4, seed=6))
        assert [c.text for c in together[0]] == alone


async def test_what_is_not_text_is_refused(t5):
    parts = [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": "data:..."}}]
    request = Request(messages=({"role": "user", "content": parts},))
    with pytest.raises(ProviderError, match="reads text, the prompt has image_url"):
        await TransformersProvider(t5).complete(request)


async def test_cancelling_ends_the_generation(t5):
    provider = TransformersProvider(t5, max_tokens=100_000, min_tokens=100_000)
    task = asyncio.create_task(ask(provider))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started = time.perf_counter()
    await ask(provider, max_tokens=2, min_tokens=0)  # the worker is free again
    assert time.perf_counter() - started < 5


async def test_a_deadline_ends_the_generation(t5):
    provider = TransformersProvider(t5, max_tokens=100_000, min_tokens=100_000)
    with pytest.raises(ProviderError) as caught:
        await provider.complete(Request(messages=ASK, timeout_s=0.3))
    assert caught.value.kind == "timeout"


def test_an_adapter_makes_it_another_model(t5, tmp_path):
    from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model

    model = AutoModelForSeq2SeqLM.from_pretrained(t5)
    torch.manual_seed(0)
    lora = get_peft_model(
        model, LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=4, target_modules=["q", "v"], init_lora_weights=False)
    )
    lora.save_pretrained(tmp_path / "lora")
    soft = get_peft_model(
        AutoModelForSeq2SeqLM.from_pretrained(t5),
        PromptTuningConfig(task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=4, num_transformer_submodules=1),
    )
    soft.save_pretrained(tmp_path / "soft")
    found = []
    for adapter in (None, tmp_path / "lora", tmp_path / "soft"):
        provider = TransformersProvider(t5, adapter=adapter)
        likelihood = asyncio.run(provider.log_likelihoods(PROMPT, ["the river begins"]))[0]
        (answer,) = asyncio.run(ask(provider, temperature=0, max_tokens=4))
        assert len(answer.logprobs["content"]) <= 4
        found.append(likelihood.sum)
    assert len({round(value, 3) for value in found}) == 3
    assert TransformersProvider(t5, adapter=tmp_path / "soft").max_prompt_tokens(None) == 508  # four tokens are virtual


def test_what_cannot_be_loaded_is_one_error(t5, tmp_path):
    with pytest.raises(InputError, match="can't be loaded as a language model"):
        TransformersProvider(tmp_path)
    with pytest.raises(InputError, match="with the adapter"):
        TransformersProvider(t5, adapter=tmp_path)


def test_a_named_local_model_is_a_provider(t5, tiny):
    selection = Selector([f"transformers:{t5}"], samples=2, max_tokens=4, accept_cut_off=True, scorer=tiny).select("q")
    assert [c.model for c in selection.candidates] == ["tiny-t5"] * 2

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_select import InputError, Plan, Sampling
from cappy_select.ask.sampling import calls_of, honoured


def test_the_papers_plan_is_its_17_candidates():
    plan = Plan.preset("paper")
    assert plan.answers("any") == 17
    assert [s.n for s in plan.samplings] == [4, 4, 4, 4, 1]
    plain, warm, top_k, nucleus, beam = (sampling.params for sampling in plan.samplings)
    assert plain == {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_tokens": 64, "min_tokens": 3}
    assert warm == plain | {"temperature": 0.9}
    assert top_k == plain | {"top_k": 40}
    assert nucleus == plain | {"top_p": 0.95}
    assert beam == {"beams": 4, "max_tokens": 64, "min_tokens": 3}
    assert plan.accept_cut_off
    assert [Plan.preset(name).answers("any") for name in ("single", "quick")] == [1, 4]


@given(
    st.builds(
        Sampling,
        n=st.integers(1, 20),
        temperature=st.none() | st.floats(0, 2),
        top_p=st.none() | st.floats(0.01, 1),
        top_k=st.none() | st.integers(0, 100),
        seed=st.none() | st.integers(0, 2**31),
    )
)
def test_a_plan_survives_a_file(sampling):
    plan = Plan(name="mine", samplings=(sampling,), overrides={"m": (sampling, Sampling(beams=3))})
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert Plan.load(json.loads(plan.model_dump_json())) == plan


def test_a_plan_is_read_from_a_file_or_by_name(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text('{"samplings": [{"n": 2, "temperature": 0.7}]}')
    assert Plan.load(file).samplings == (Sampling(n=2, temperature=0.7),)
    assert Plan.load("paper") is Plan.preset("paper")
    for content, message in [("{", "can't be read"), ('{"samplings": []}', "samplings"), ('{"samples": 3}', "samples")]:
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            Plan.load(str(file))
    with pytest.raises(InputError, match="there are single, quick, paper"):
        Plan.load("big")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 4, "temperature": 0.5}, "exclude each other"),
        ({"beams": 2, "n": 3}, "no 3 answers"),
        ({"min_tokens": 9, "max_tokens": 3}, "more than max_tokens"),
        ({"top_p": 0}, "top_p"),
        ({"temperature": -1}, "temperature"),
        ({"n": 0}, "n"),
        ({"seed": -1}, "seed"),
        ({"top_n": 1}, "top_n"),
    ],
)
def test_a_sampling_that_means_nothing_is_an_error(options, message):
    with pytest.raises(InputError, match=message):
        Plan.load({"samplings": [options]})


def test_what_a_provider_cannot_do_is_an_error_or_a_recorded_downgrade():
    plan = Plan(samplings=(Sampling(n=3, temperature=0.5, top_k=40), Sampling(temperature=1.0)))
    with pytest.raises(InputError, match=r"m can't do top_k=40 .*on_unsupported='downgrade'"):
        honoured(plan, "m", lambda params: params.keys() - {"temperature"})
    allowed = plan.model_copy(update={"on_unsupported": "downgrade"})
    samplings, (downgrade,) = honoured(allowed, "m", lambda params: params.keys() - {"temperature"})
    assert samplings == (Sampling(n=3, temperature=0.5), Sampling(temperature=1.0))
    assert (downgrade.model, downgrade.left_out, downgrade.answers) == ("m", {"top_k": 40}, 3)
    assert honoured(plan, "m", lambda params: ()) == (plan.samplings, ())


def test_overrides_are_asked_of_their_model_alone():
    plan = Plan(samplings=(Sampling(n=4),), overrides={"big": (Sampling(n=1),)})
    assert (plan.answers("big"), plan.answers("other")) == (1, 4)


def test_calls_ask_for_several_answers_or_one_each_with_seeds_of_their_own():
    samplings = (Sampling(n=3, seed=7), Sampling(n=2), Sampling(n=2, seed=7))
    assert list(calls_of(samplings, several=True)) == [
        (0, samplings[0]), (3, samplings[1]), (5, Sampling(n=2, seed=12)),
    ]  # fmt: skip
    alone = list(calls_of(samplings, several=False))
    assert [first for first, _ in alone] == [0, 1, 2, 3, 4, 5, 6]
    assert [sampling.seed for _, sampling in alone] == [7, 8, 9, None, None, 12, 13]
    assert all(sampling.n == 1 for _, sampling in alone)


def test_parameters_beside_a_plan_join_it_unless_it_has_them():
    plan = Plan(samplings=(Sampling(n=2, temperature=0.5),))
    joined = plan.with_params({"max_tokens": 9, "tools": [], "seed": None})
    assert joined.samplings == (Sampling(n=2, temperature=0.5, max_tokens=9),)
    with pytest.raises(InputError, match="temperature: set by the plan 'custom'"):
        plan.with_params({"temperature": 1.0})
    with pytest.raises(InputError, match="max_tokens"):
        plan.with_params({"max_tokens": 0})

"""Optimiser, accumulation, buckets and losses against torch, and against the plainest way to do the same."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
import transformers
from test_batches import token_set
from test_encoder import MAKE, torch_model, torch_scores

from cappy_select.train.batches import Batches, MicroBatch
from cappy_select.train.compiled import compiled
from cappy_select.train.config import TrainConfig
from cappy_select.train.loop import _counts
from cappy_select.train.mesh import mesh_of
from cappy_select.train.optimiser import optimiser_of, schedule_of
from cappy_select.train.weights import read_checkpoint

BASE = {"pairs": "p", "checkpoint": "c", "dropout": False, "updates": 10, "warmup": 0.2, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """One of each architecture that can be trained."""
    root = tmp_path_factory.mktemp("trainable")
    return {kind: make(root / kind) for kind, make in MAKE.items()}


# RoBERTa's trunk is BERT's; what it has of its own, test_encoder.py holds against torch.
QUICK = [pytest.param(kind, marks=pytest.mark.slow) if kind == "roberta" else kind for kind in MAKE]


def run_of(checkpoint, **settings):
    config = TrainConfig(**BASE | settings)
    shape, weights = read_checkpoint(checkpoint)
    run = compiled(config, shape, optimiser_of(config), mesh_of(config.fsdp))
    return run, run.begin(weights), shape


def accumulated(run, state, micro_batches):
    """The update's gradient and loss."""
    counts, _ = _counts(micro_batches)
    gradients, loss = run.zeros(), 0.0
    for number, micro in enumerate(micro_batches):
        gradients, part = run.gradient(state.weights, gradients, micro, counts, np.array([0, number], np.int32))
        loss += float(part)
    return gradients, loss


def batches_of(tokens, shape, **options):
    named = {"batch": 64, "micro_tokens": 64 * 128, "buckets": (128,), "pad": shape.pad_token_id, "seed": 1}
    return Batches(tokens, **named | options)


def tokens_for(shape, **options):
    return token_set(
        rows=200, groups=40, longest=100, vocabulary=shape.vocab_size, types=shape.type_vocab_size, **options
    )


def apart(ours, theirs):
    """The norm of the difference beside that of the gradient, over all weights."""
    difference = sum(float(np.square(np.asarray(ours[name]) - np.asarray(theirs[name])).sum()) for name in ours)
    return (difference / sum(float(np.square(np.asarray(theirs[name])).sum()) for name in ours)) ** 0.5


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="squared", marks=pytest.mark.slow),
        pytest.param({"ranking_weight": 0.5}, id="both"),
        pytest.param({"ranking_weight": 1.0, "l2_weight": 0.0}, id="ranking", marks=pytest.mark.slow),
    ],
)
def test_how_an_update_is_cut_changes_nothing(checkpoints, kind, settings):
    run, state, shape = run_of(checkpoints[kind], **settings)
    tokens = tokens_for(shape)
    width = 4 if settings else 1
    ways = {
        "one": {"micro_tokens": 64 * 128 * width},
        "eight": {"micro_tokens": 8 * 128 * width},
        "buckets": {"buckets": (16, 32, 64, 128), "micro_tokens": 1024},
    }
    made = {}
    for way, options in ways.items():
        micro_batches = batches_of(tokens, shape, width=width, **options).of_update(0)
        assert way == "one" or len(micro_batches) >= 4
        made[way] = accumulated(run, state, micro_batches)
    for way in ("eight", "buckets"):
        assert made[way][1] == pytest.approx(made["one"][1], abs=1e-6)
        assert apart(made[way][0], made["one"][0]) <= 1e-5


@pytest.mark.parametrize(
    ("schedule", "options"),
    [("linear", {}), ("cosine", {"weight_decay": 0.1, "max_grad_norm": 0.5}), ("constant", {"weight_decay": 0.1})],
)
@pytest.mark.parametrize("kind", QUICK)
def test_three_updates_of_the_optimiser_are_torchs(checkpoints, kind, schedule, options):
    settings = {"schedule": schedule} | options
    run, state, shape = run_of(checkpoints[kind], **settings)
    config = TrainConfig(**BASE | settings)
    theirs = torch_model(checkpoints[kind])
    batches = batches_of(tokens_for(shape), shape)
    decay = options.get("weight_decay", 0.0)
    plain = [p for name, p in theirs.named_parameters() if "bias" in name or "LayerNorm" in name]
    others = [p for name, p in theirs.named_parameters() if not ("bias" in name or "LayerNorm" in name)]
    groups = [{"params": others, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, eps=1e-8)
    warm = {"num_warmup_steps": 2}
    rates = {
        "linear": lambda: transformers.get_linear_schedule_with_warmup(optimiser, **warm, num_training_steps=10),
        "cosine": lambda: transformers.get_cosine_schedule_with_warmup(optimiser, **warm, num_training_steps=10),
        "constant": lambda: transformers.get_constant_schedule_with_warmup(optimiser, **warm),
    }[schedule]()
    for update in range(3):
        (micro,) = batches.of_update(update)
        assert float(schedule_of(config)(update)) == pytest.approx(rates.get_last_lr()[0], rel=1e-6, abs=1e-12)
        optimiser.zero_grad()
        loss = (torch_scores(theirs, micro.ids, micro.types, micro.lengths) - torch.tensor(micro.scores[:, 0])) ** 2
        loss = loss.mean()
        loss.backward()
        if "max_grad_norm" in options:
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), options["max_grad_norm"])
        optimiser.step()
        rates.step()
        gradients, ours = accumulated(run, state, [micro])
        state, _ = run.update(state, gradients)
        assert ours == pytest.approx(float(loss.detach()), rel=1e-4)
    with torch.no_grad():
        expected = torch_scores(theirs, micro.ids, micro.types, micro.lengths).numpy()
    assert np.abs(np.asarray(run.scores(state.weights, micro))[:, 0] - expected).max() <= 1e-4
    assert int(state.step) == 3


def test_the_ranking_loss_is_bradley_terrys(checkpoints):
    run, state, shape = run_of(checkpoints["bert"], l2_weight=0.0, ranking_weight=1.0)
    (micro,) = batches_of(tokens_for(shape), shape, batch=5, width=4).of_update(0)
    scores = np.asarray(run.scores(state.weights, micro))
    losses = []
    for unit in range(5):
        for first in range(4):
            for second in range(4):
                both = micro.weights[unit, first] and micro.weights[unit, second]
                if both and micro.scores[unit, first] > micro.scores[unit, second]:
                    losses.append(np.log1p(np.exp(scores[unit, second] - scores[unit, first])))
    assert len(losses) > 5
    _, found = accumulated(run, state, [micro])
    assert found == pytest.approx(np.mean(losses), rel=1e-5)


def test_dropout_differs_by_update_and_micro_batch_and_half_of_it_is_dropped(checkpoints):
    from cappy_select.train.attention import dropped

    run, state, shape = run_of(checkpoints["bert"], dropout=True)
    micro = batches_of(tokens_for(shape), shape).of_update(0)[0]
    counts, _ = _counts([micro])
    losses = {
        key: float(run.gradient(state.weights, run.zeros(), micro, counts, np.array(key, np.int32))[1])
        for key in [(0, 0), (0, 1), (1, 0)]
    }
    assert len(set(losses.values())) == 3
    values = np.asarray(dropped(jax.numpy.ones((300, 400)), 0.25, jax.random.key(3)))
    kept = values > 0
    assert np.allclose(values[kept], 4 / 3)
    assert kept.mean() == pytest.approx(0.75, abs=0.01)
    for axis in (0, 1):  # neighbours are independent
        pairs = np.take(kept, range(1, kept.shape[axis]), axis) & np.take(kept, range(kept.shape[axis] - 1), axis)
        assert pairs.mean() == pytest.approx(0.75**2, abs=0.01)


def test_a_whole_batch_of_empty_rows_adds_nothing(checkpoints):
    run, state, shape = run_of(checkpoints["bert"])
    micro = batches_of(tokens_for(shape), shape).of_update(0)[0]
    empty = MicroBatch(micro.ids, micro.types, np.ones_like(micro.lengths), micro.scores, np.zeros_like(micro.weights))
    assert apart(accumulated(run, state, [micro, empty])[0], accumulated(run, state, [micro])[0]) == 0

"""A scorer of nothing much, in seconds: see the trainer at work, from a file of instances to a bundle.

    cappy train recipes/smoke.py
    cappy rank --scorer runs/smoke/bundle "Put plum where it belongs." animal fruit tool colour

A tiny BERT with random weights learns which of forty words are fruits, animals, tools or colours: 99 % of held-out
questions or better, chance 25 %, in about a minute on two cores.
"""

from pathlib import Path

from cappy_select.train import (
    TrainConfig,
)

HERE = Path(__file__).parent / "smoke"


def get_config() -> TrainConfig:
    return TrainConfig(
        pairs=str(HERE / "instances.jsonl"),
        checkpoint=str(HERE),  # a shape and a tokenizer, no weights
        fresh=True,
        updates=500,
        batch=128,
        micro_tokens=3072,
        buckets=(24, 128),
        learning_rate=2e-3,
        evaluate_every=100,
    )

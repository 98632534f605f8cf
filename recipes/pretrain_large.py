"""Pretrain Cappy large (360M parameters): as `pretrain_base`, from RoBERTa-large.

    cappy train recipes/pretrain_large.py --set pairs=pairs

Not run by us in this form. Where memory is short: --set remat=true, --set fsdp=8, or smaller micro_tokens.
"""

from cappy_select.train import (
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        pairs="pairs",
        checkpoint="hf://FacebookAI/roberta-large",
        updates=156_250,
        batch=1024,
        micro_tokens=32_768,
        learning_rate=1e-6,
        schedule="linear",
        warmup=0.1,
        max_grad_norm=1.0,
        compute_dtype="bfloat16",
        evaluate_every=2000,
        save_every=2000,
    )

"""Adapt a scorer to one task, as the paper's repository does for each task of BIG-bench.

    cappy build tickets.jsonl --recorded samples.db --mode adapt --out pairs
    cappy train recipes/finetune_task.py --set pairs=pairs --out runs/tickets

400 updates of 256 pairs, learning rate 2e-5, linear with 10 % warm-up, no weight decay, fp32 (Tan et al. 2023 and
tanyuqian/cappy). Start from any BERT, RoBERTa, XLM-RoBERTa or MPNet scorer: --set checkpoint=FOLDER or hf://org/name.
Small tasks overfit early; the best of the looks at the validation pairs is what is kept, and --set patience=4 ends the
run then.
"""

from cappy_select.train import (
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        pairs="pairs",
        checkpoint="hf://btan2/cappy-large",
        updates=400,
        batch=256,
        learning_rate=2e-5,
        schedule="linear",
        warmup=0.1,
        weight_decay=0.0,
        seed=11111,
        evaluate_every=50,
    )

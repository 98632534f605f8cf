r"""cappy-base: all-mpnet-base-v2 (MPNet, 12 layers, width 768; Apache-2.0) made a scorer, on a CPU, short rows first.

    python recipes/prepare/fetch_mpnet.py --out encoder
    python recipes/made_tasks train-recross.jsonl.gz train-selfinstruct.jsonl.gz --out made
    python recipes/prepare/short_rows.py train-recross.jsonl.gz train-selfinstruct.jsonl.gz made/instances.jsonl \
        --out short.jsonl
    cappy build short.jsonl --validation 0.005 --against zeroshot-dev.jsonl.gz --out pairs --seed 7
    cappy train recipes/base.py --set pairs=pairs --set checkpoint=encoder --out runs/base --resume

It is not finished: no weights are shipped yet. Two cores with AVX-512 BF16 take some 10 s for an update of 64 pairs.
The learning rate stays as it is, so that the run can go on from any state and be averaged or annealed later.
"""

from cappy_select.train import TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        pairs="pairs",
        checkpoint="hf://sentence-transformers/all-mpnet-base-v2",
        updates=20_000,
        batch=32,
        buckets=(32, 48, 64, 80, 96, 128, 160, 192),
        learning_rate=3e-5,
        schedule="constant",
        warmup=0.01,
        weight_decay=0.01,
        max_grad_norm=1.0,
        l2_weight=1.0,
        ranking_weight=1.0,
        ranking_scale=4.0,
        group_rows=2,
        compute_dtype="bfloat16",
        validation_rows=500,
        evaluate_every=250,
        save_every=50,
        bundle=None,
    )

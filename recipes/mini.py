"""Train a scorer of the size of the embedded default: all-MiniLM-L6-v2 (BERT, 6 layers, width 384; Apache-2.0).

    cappy build t0/train-recross.jsonl.gz t0/train-selfinstruct.jsonl.gz --rows-per-task 4000 --out pairs
    cappy train recipes/mini.py --set pairs=pairs

The encoder comes with a pooler and no head; the head begins at random. Not yet what the embedded default was made
with: that is still the stand-in of docs/cappy-mini.md.
"""

from cappy_select.train.config import TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        pairs="pairs",
        checkpoint="hf://sentence-transformers/all-MiniLM-L6-v2",
        updates=4000,
        batch=64,
        learning_rate=1e-4,
        schedule="linear",
        warmup=0.1,
        weight_decay=0.01,
        clip=1.0,
        evaluate_every=500,
        save_every=250,
        bundle="int8",
    )

"""The trainer's configuration for one task: small data, a few epochs, the best look kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cappy_select.adapt.config import AdaptConfig
from cappy_select.data.shards import read_pairs, shards_of
from cappy_select.train.config import TrainConfig

# An update has few groups, and there are some dozens of updates however few the instances are; when there are very
# many, an update has more of them instead.
_BATCH, _FEWEST, _MOST = 4, 40, 2000
_BUCKETS = TrainConfig.model_fields["buckets"].default
_LOOKS = 8  # at the validation pairs


def training_config(
    config: AdaptConfig, pairs: Path, start: Path, window: int, groups: int, widest: int
) -> TrainConfig:
    """How to train a scorer of this window on so many groups of pairs, the widest of so many rows."""
    batch = max(_BATCH, round(config.epochs * groups / _MOST))
    updates = max(_FEWEST, round(config.epochs * groups / batch))
    return TrainConfig(
        pairs=str(pairs),
        checkpoint=str(start),
        updates=updates,
        batch=batch,
        buckets=(*(length for length in _BUCKETS if length < window), window),
        learning_rate=5e-5,
        weight_decay=0.01,
        max_grad_norm=1.0,
        l2_weight=1.0,
        ranking_weight=1.0,
        ranking_scale=4.0,
        group_rows=max(2, min(8, widest)),
        seed=config.seed,
        evaluate_every=max(1, updates // _LOOKS),
        save_every=max(1, min(100, updates // 4)),
        bundle=None,
    ).changed(config.settings)


def uses_references(config: AdaptConfig, judged: int, samples: int) -> bool:
    """Whether references are trained on beside the samples: as was said, else unless most samples were judged."""
    if config.references is not None:
        return config.references
    return not config.augmentation or 2 * judged < samples or not samples


def groups_of(pairs: Path) -> tuple[int, int]:
    """How many groups the training pairs are, and how many rows the widest has."""
    rows: Counter[tuple[str, str]] = Counter()
    for shard in shards_of(pairs, "train"):
        for columns in read_pairs(pairs / shard["name"], ["task", "group"]):
            rows.update(zip(columns["task"], columns["group"], strict=True))
    return len(rows), max(rows.values(), default=0)

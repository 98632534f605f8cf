"""Training speed: ours beside Hugging Face's `Trainer` (torch), on the same lengths, model and batch.

    python benchmarks/training.py [--quick] [--json FILE]

Real tokens a second (padding is none) of a scorer of the shape of MiniLM (BERT, 6 layers, width 384), random weights,
fp32, AdamW, 64 pairs an update; the Trainer groups rows by length. Each engine trains in a process of its own, turn by
turn; compilation and the first updates are not counted. The lengths are those of `../shared/data/t0` when it is there,
else drawn to be like them (median 65 tokens, mean 104).
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

T0 = Path(__file__).parents[2] / "shared" / "data" / "t0" / "train-recross.jsonl.gz"
BATCH, WARM = 64, 3
SHAPE = {
    "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 1536, "max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0,
}  # fmt: skip


def lengths_of(count: int = 2600) -> np.ndarray:
    """int64[n], tokens of real pairs, cut at 512."""
    if not T0.exists():
        print("the shared data is not here: lengths are drawn", file=sys.stderr)
        return np.clip(np.exp(np.random.default_rng(0).normal(4.25, 0.85, count)), 8, 512).astype(np.int64)
    from cappy_select.bundle.bundle import EMBEDDED, load_bundle
    from cappy_select.scorer.encoding import PairEncoder

    encoder, found = PairEncoder.of(load_bundle(EMBEDDED)), []
    with gzip.open(T0, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number % 60 == 0:
                row = json.loads(line)
                found.append(encoder.pair(*encoder.tokens([row["instruction"], row["references"][0]])).length)
    return np.array(found)


def ours(lengths: np.ndarray, updates: int, dropout: float) -> dict[str, float]:
    """Through the trainer's own loop."""
    from cappy_select.train.config import TrainConfig
    from cappy_select.train.encoder import EncoderConfig
    from cappy_select.train.loop import fit
    from cappy_select.train.run import Update
    from cappy_select.train.start import Start
    from cappy_select.train.tokens import TokenSet

    draw = np.random.default_rng(0)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = TokenSet(
        ids=draw.integers(1000, 30000, starts[-1]).astype(np.uint16), starts=starts,
        responses=np.minimum(lengths, 5).astype(np.int32), scores=draw.random(len(lengths)).astype(np.float32),
        groups=np.arange(len(lengths) + 1), tasks=("t",) * len(lengths), cut=0,
    )  # fmt: skip
    shape = EncoderConfig(model_type="bert", hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **SHAPE)
    config = TrainConfig(pairs="-", checkpoint="-", updates=updates + WARM, batch=BATCH, learning_rate=5e-5)
    begun: dict[str, Any] = {"tokens": 0, "seconds": []}

    def on_update(update: Update) -> None:
        if update.step > WARM and update.seconds is not None and update.tokens is not None:
            begun["seconds"].append((update.tokens, update.seconds))

    import jax

    with tempfile.TemporaryDirectory() as out:
        # The first pass compiles each bucket's shape, the second one finds it compiled.
        jax.config.update("jax_compilation_cache_dir", str(Path(out) / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        for number in range(2):
            begun["seconds"] = []
            folder = Path(out) / str(number)
            folder.mkdir()
            fit(config, Start("-", folder, shape, {}, b"", None), tokens, None, folder, on_update=on_update)  # type: ignore[arg-type]
    tokens_made, seconds = (sum(each) for each in zip(*begun["seconds"], strict=True))
    return {"tokens_per_s": tokens_made / seconds}


def theirs(lengths: np.ndarray, updates: int, dropout: float) -> dict[str, float]:
    """transformers' Trainer."""
    import torch
    import transformers

    draw = np.random.default_rng(0)
    kept = {"tokens": 0, "padded": 0, "began": 0.0, "seconds": 0.0}

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(lengths)

        def __getitem__(self, row: int) -> dict[str, Any]:
            size = int(lengths[row])
            return {"input_ids": draw.integers(1000, 30000, size).tolist(), "labels": 0.5}

    def collated(rows: list[dict[str, Any]]) -> dict[str, Any]:
        longest = max(len(row["input_ids"]) for row in rows)
        kept["tokens"] += sum(len(row["input_ids"]) for row in rows)
        kept["padded"] += longest * len(rows)
        ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([0.5] * len(rows))}

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step == WARM:
                kept.update(tokens=0, padded=0, began=time.perf_counter())
            if state.global_step == args.max_steps:
                kept["seconds"] = time.perf_counter() - kept["began"]

    config = transformers.BertConfig(
        num_labels=1, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **SHAPE
    )
    with tempfile.TemporaryDirectory() as out:
        arguments = transformers.TrainingArguments(
            output_dir=out, per_device_train_batch_size=BATCH, max_steps=updates + WARM, report_to=[],
            save_strategy="no", logging_strategy="no", use_cpu=True, remove_unused_columns=False, disable_tqdm=True,
            train_sampling_strategy="group_by_length",
        )  # fmt: skip
        model = transformers.BertForSequenceClassification(config)
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=Rows(), data_collator=collated, callbacks=[Clock()]
        )
        trainer.train()
    return {"tokens_per_s": kept["tokens"] / kept["seconds"], "fill": kept["tokens"] / kept["padded"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 6 updates instead of three of 12")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--worker", nargs=3, metavar=("ENGINE", "UPDATES", "DROPOUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        engine, updates, dropout = given.worker
        measured = {"ours": ours, "trainer": theirs}[engine](lengths_of(), int(updates), float(dropout))
        print(json.dumps(measured))
        return
    rounds, updates = (1, 6) if given.quick else (3, 12)
    figures: dict[str, Any] = {}
    for dropout in (0.1, 0.0):
        speeds: dict[str, list[float]] = {"ours": [], "trainer": []}
        for _ in range(rounds):
            for engine, found in speeds.items():
                command = [sys.executable, __file__, "--worker", engine, str(updates), str(dropout)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"{engine} failed:\n{done.stderr}")
                found.append(json.loads(done.stdout.strip().splitlines()[-1])["tokens_per_s"])
        ratios = [mine / others for mine, others in zip(*speeds.values(), strict=True)]
        figures[f"dropout {dropout}"] = speeds | {"ratio": statistics.median(ratios)}
        medians = {engine: statistics.median(found) for engine, found in speeds.items()}
        print(
            f"dropout {dropout}: ours {medians['ours']:,.0f} tokens/s, Trainer {medians['trainer']:,.0f}, "
            f"ratio {statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

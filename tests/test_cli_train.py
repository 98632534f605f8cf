"""`cappy train` as people and machines call it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakehub import serve_hub
from trainings import environment, losses_of, run_training

from cappy_select import Scorer
from cappy_select.train.config import TrainConfig
from cappy_select.train.recipe import load_recipe

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.mark.slow
def test_the_smoke_recipe_makes_a_scorer_that_has_learned(tmp_path):
    done = run_training(RECIPES / "smoke.py", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    run = json.loads(done.stdout)
    assert run == json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["result"]["validation"]["accuracy"] > run["result"]["before"]["accuracy"] + 0.3
    best = Scorer.load(tmp_path / "out" / "bundle").rank("Put plum where it belongs.", ["animal", "colour", "fruit"])[0]
    assert best.response == "fruit"


def test_people_are_told_what_is_done_and_where_it_is(recipe, tmp_path):
    done = run_training(recipe, tmp_path / "out", updates=2)
    assert done.returncode == 0, done.stderr
    assert "2 updates" in done.stdout
    assert f"checkpoint: {tmp_path / 'out' / 'model'}" in done.stdout
    assert "bundle" not in done.stdout
    assert "training: 2 updates" in done.stderr
    assert sorted(losses_of(tmp_path / "out")) == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "speed=1"], "speed"),
        (["--set", "batch=none"], "batch"),
        (["--processes", "2"], "go together"),
        (["--set", "checkpoint=nowhere"], "no checkpoint at nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(recipe, tmp_path, arguments, message):
    done = run_training(recipe, tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.py")))
def test_recipes_are_configurations(name):
    config = load_recipe(RECIPES / f"{name}.py")
    assert isinstance(config, TrainConfig)
    assert config.checkpoint.startswith("hf://") or Path(config.checkpoint).is_dir()


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_a_checkpoint_comes_from_a_hub(checkpoints, tmp_path, form):
    folder = tmp_path / "repo"
    shutil.copytree(checkpoints["roberta"], folder)
    if form == "pytorch_model.bin":
        import torch
        from safetensors.torch import load_file

        torch.save(load_file(folder / "model.safetensors"), folder / form)
        (folder / "model.safetensors").unlink()
    script = """
from cappy_select.train.config import TrainConfig
from cappy_select.train.start import starting_point
start = starting_point(TrainConfig(pairs="-", checkpoint="hf://org/scorer", buckets=(64,)))
print(start.is_scorer, start.shape.model_type, start.encoder.room)
"""
    with serve_hub({"org/scorer": folder}) as (address, _):
        there = environment(HF_ENDPOINT=address, HF_HOME=str(tmp_path / "hf"))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=there)
    assert done.stdout == "True roberta 60\n", done.stderr


def test_weights_and_biases_is_told_too(recipe, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    done = run_training(recipe, tmp_path / "out", "--wandb", "cappy", updates=2)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").glob("wandb/offline-run-*/*.wandb"))


def test_without_jax_the_extra_is_named(recipe):
    script = f"""
import sys
sys.modules["jax"] = None
sys.argv = ["cappy", "train", {str(recipe)!r}]
from cappy_select.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment())
    assert done.returncode == 2
    assert "pip install 'cappy-select[train]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1

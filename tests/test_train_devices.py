"""The same run on one device, on many, and in several processes."""

from __future__ import annotations

import socket
import subprocess

import numpy as np
import pytest
from trainings import environment, log_of, looks_of, losses_of, run_training, train_command, weights_of

SETTINGS = {"dropout": False, "updates": 20, "save_every": 10, "batch": 64, "micro_tokens": 512}


@pytest.fixture(scope="module")
def one(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "out"
    assert run_training(recipe, out, **SETTINGS).returncode == 0
    return out


def assert_alike(out, one):
    ours, theirs = losses_of(out), losses_of(one)
    assert list(ours) == list(theirs) == list(range(1, 21))
    for step, loss in theirs.items():
        assert ours[step] == pytest.approx(loss, rel=1e-5), step
    for step, look in looks_of(one).items():
        assert looks_of(out)[step]["loss"] == pytest.approx(look["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 2], ids=["8 data-parallel", "4 x 2 FSDP"])
def test_eight_devices_give_the_losses_of_one(one, recipe, tmp_path, fsdp):
    done = run_training(recipe, tmp_path / "out", devices=8, fsdp=fsdp, **SETTINGS)
    assert done.returncode == 0, done.stderr
    assert_alike(tmp_path / "out", one)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_processes(recipe, out, *arguments, **settings):
    address = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            train_command(
                recipe, out, *arguments, "--coordinator", address, "--processes", "2", "--process", str(number),
                **SETTINGS | settings,
            ),
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(one, recipe, tmp_path):
    out = tmp_path / "out"
    started = start_processes(recipe, out)
    said = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert_alike(out, one)
    assert "20 updates" in said[0][0]
    assert "updates" not in said[1][0]
    assert [row["step"] for row in log_of(out) if "loss" in row] == list(range(1, 21))  # one of them writes
    assert len(list((out / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_what_the_first_process_can_not_do_ends_the_others_too(recipe, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    started = start_processes(recipe, tmp_path / "out")
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], said
    assert "holds no run" in said[0]
    assert "first process of this run failed" in said[1]


@pytest.mark.slow
def test_a_checkpoint_of_one_layout_goes_on_in_another(one, recipe, tmp_path):
    out = tmp_path / "out"
    stop = tmp_path / "stop.py"
    stop.write_text(
        recipe.read_text()
        + """
import signal, threading, time
from pathlib import Path

def stop():
    while not (Path(OUT) / "checkpoints" / "last" / "10").is_dir():
        time.sleep(0.01)
    signal.raise_signal(signal.SIGTERM)

threading.Thread(target=stop, daemon=True).start()
""".replace("OUT", repr(str(out)))
    )
    first = run_training(stop, out, devices=8, fsdp=2, **SETTINGS)
    assert first.returncode == 143, first.stderr
    assert 10 <= max(losses_of(out)) < 20
    started = start_processes(recipe, out, "--resume")
    said = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert_alike(out, one)
    ours, theirs = weights_of(out), weights_of(one)
    assert all(np.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5) for name in ours)


def test_weights_and_the_optimisers_state_are_spread_as_the_rule_says(tmp_path):
    script = """
import jax, numpy as np
from cappy_select.train.config import TrainConfig
from cappy_select.train.encoder import EncoderConfig, initial_weights
from cappy_select.train.mesh import mesh_of
from cappy_select.train.optimiser import optimiser_of
from cappy_select.train.compiled import compiled
shape = EncoderConfig(model_type="bert", vocab_size=101, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
    intermediate_size=128, max_position_embeddings=128, type_vocab_size=2, pad_token_id=0)
config = TrainConfig(pairs="p", checkpoint="c", fsdp=4)
run = compiled(config, shape, optimiser_of(config), mesh_of(4))
state = run.begin(initial_weights(shape, jax.random.key(0)))
def held(array): return array.addressable_shards[0].data.size / array.size
moments = [leaf for leaf in jax.tree.leaves(state.optimiser) if leaf.shape == (3, 64, 128)]
print(held(state.weights["up_kernel"]), held(state.weights["up_bias"]), held(state.weights["word"]),
      sorted({held(leaf) for leaf in moments}), len(moments))
"""
    done = subprocess.run(
        [train_command(tmp_path, tmp_path)[0], "-c", script],
        capture_output=True, text=True, env=environment(XLA_FLAGS="--xla_force_host_platform_device_count=8"),
    )  # fmt: skip
    # 101 rows can't be cut in four, so the embeddings are cut along their width
    assert done.stdout.split(" ", 3) == ["0.25", "1.0", "0.25", "[0.25] 2\n"], done.stderr

"""Whole training runs: what they make, and how they end, go on and fail."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from tasks import choice, write
from tiny import make_mpnet
from trainings import assert_same, environment, looks_of, losses_of, run_training, train_command, weights_of

from cappy_select import Scorer
from cappy_select.core.errors import DataError, InputError
from cappy_select.train.config import TrainConfig
from cappy_select.train.job import train
from cappy_select.train.recipe import load_recipe


@pytest.fixture(scope="module")
def straight(recipe, tmp_path_factory):
    """A run that nothing happens to."""
    out = tmp_path_factory.mktemp("straight") / "out"
    result = train(load_recipe(recipe, ["bundle=fp32"]), out)
    assert result.signal is None
    return out


def test_a_run_leaves_a_bundle_a_checkpoint_a_record_and_a_plot(straight, recipe):
    run = json.loads((straight / "run.json").read_text())
    assert run["config"] == load_recipe(recipe, ["bundle=fp32"]).model_dump(mode="json")
    assert {"jax", "flax", "optax", "orbax-checkpoint", "cappy-select", "python"} <= run["versions"].keys()
    assert run["data"]["rows"]["train"] > 400
    assert run["hardware"]["devices"].startswith("1 ×")
    result, looks = run["result"], looks_of(straight)
    assert result["updates"] == 40
    assert list(looks) == [0, 10, 20, 30, 40]
    best = max(looks, key=lambda step: (looks[step]["accuracy"], -looks[step]["loss"]))
    assert result["best_update"] == best
    assert result["validation"] == looks[best]
    losses = losses_of(straight)
    assert sorted(losses) == list(range(1, 41))
    assert np.mean([losses[step] for step in range(31, 41)]) < 0.9 * losses[1]
    assert (straight / "training.png").read_bytes().startswith(b"\x89PNG")
    assert list((straight / "tensorboard").iterdir())


def test_the_bundle_scores_as_the_checkpoint_does_in_torch(straight):
    import torch
    import transformers

    scorer = Scorer.load(straight / "bundle")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(straight / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(straight / "model")
    pairs = [("Which colour is thing 3 of colors?", "yellow"), ("Say something.", "The number 4 stands after 3.")]
    with torch.no_grad():
        expected = [float(model(**tokenizer(*pair, return_tensors="pt")).logits[0, 0]) for pair in pairs]
    assert scorer.score_pairs(pairs) == pytest.approx(expected, abs=1e-4)
    provenance = Scorer.load(straight / "bundle").bundle.manifest.provenance["training"]
    assert provenance["config"]["updates"] == 40
    assert str(straight) not in json.dumps(provenance)


def test_what_is_said_while_it_runs_is_also_in_tensorboard(straight):
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for file in (straight / "tensorboard").iterdir():
        content, at = file.read_bytes(), 0
        while at < len(content):  # a record: its length in eight bytes, four of checksum, the event, four of checksum
            size = int.from_bytes(content[at : at + 8], "little")
            event = Event.FromString(content[at + 12 : at + 12 + size])
            found.update({(value.tag, event.step): value.simple_value for value in event.summary.value})
            at += 16 + size
    losses = losses_of(straight)
    assert {step: found["loss", step] for step in losses} == pytest.approx(losses)
    assert found["validation_accuracy", 20] == pytest.approx(looks_of(straight)[20]["accuracy"])
    assert found["learning_rate", 40] > 0


def test_a_finished_run_is_left_alone_and_needs_resume_to_be_named_again(straight, recipe):
    before = (straight / "run.json").stat().st_mtime_ns
    result = train(load_recipe(recipe, ["bundle=fp32"]), straight, resume=True)
    assert result.run["result"]["updates"] == 40
    assert len(result.updates) == 45
    assert (straight / "run.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="--resume goes on"):
        train(load_recipe(recipe, ["bundle=fp32"]), straight)
    with pytest.raises(InputError, match=r"learning_rate is 0\.001 there and 0\.5 here"):
        train(load_recipe(recipe, ["learning_rate=0.5"]), straight, resume=True)


def kill_at(command, out, step):
    """Start a run and kill it -9 when it has said that it made an update."""
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if (out / "log.jsonl").exists() and max(losses_of_partial(out), default=0) >= step:
            break
        time.sleep(0.005)
    process.kill()
    return process.wait()


def losses_of_partial(out):
    rows = []
    for line in (out / "log.jsonl").read_text().splitlines():
        try:
            rows.append(json.loads(line)["step"])
        except (ValueError, KeyError):
            break
    return rows


@pytest.mark.slow
def test_a_run_that_is_killed_and_goes_on_ends_with_the_same_bits(straight, recipe, tmp_path):
    out, draw = tmp_path / "out", random.Random()
    steps = sorted(draw.sample(range(1, 39), 2))
    for number, step in enumerate(steps):
        killed = kill_at(train_command(recipe, out, *["--resume"] * number), out, step)
        assert killed == -signal.SIGKILL, steps
    done = run_training(recipe, out, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same(out, straight)


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_and_143(straight, recipe, tmp_path):
    out = tmp_path / "out"
    command = train_command(recipe, out)
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (out / "log.jsonl").exists() or max(losses_of_partial(out), default=0) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert "--resume goes on" in said
    made = max(losses_of(out))
    assert (out / "checkpoints" / "last" / str(made)).is_dir()
    assert not (out / "model").exists()
    assert run_training(recipe, out, "--resume").returncode == 0
    assert_same(out, straight)


def damage(folder, how):
    """Break every large file of a checkpoint."""
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    for file in files[-2:]:
        content = bytearray(file.read_bytes())
        if how == "truncated":
            content = content[: len(content) // 2]
        else:
            content[len(content) // 2 : len(content) // 2 + 64] = os.urandom(64)
        file.write_bytes(content)


@pytest.mark.parametrize("how", [pytest.param("truncated", marks=pytest.mark.slow), "overwritten"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(straight, recipe, tmp_path, how):
    out = tmp_path / "out"

    class Stop(Exception):
        pass

    def stop(update):
        if update.step == 23:
            raise Stop

    with pytest.raises(Stop):
        train(load_recipe(recipe), out, on_update=stop)
    last = out / "checkpoints" / "last"
    kept = sorted(int(folder.name) for folder in last.iterdir() if folder.name.isdigit())
    damage(last / str(kept[-1]), how)
    with pytest.warns(UserWarning, match=f"checkpoint of update {kept[-1]} can't be read"):
        train(load_recipe(recipe), out, resume=True)
    assert_same(out, straight)


@pytest.mark.slow
def test_a_full_disk_is_said_and_what_was_kept_goes_on(straight, recipe, tmp_path):
    out = tmp_path / "out"
    script = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from disk import full_disk
from cappy_select.cli import main
with full_disk(int(sys.argv.pop(1))):
    main()
"""
    (tmp_path / "script.py").write_text(script)
    command = train_command(recipe, out)[3:]
    here = os.path.dirname(__file__)
    full = [train_command(recipe, out)[0], str(tmp_path / "script.py"), here, "100000", *command]
    done = subprocess.run(full, capture_output=True, text=True, env=environment(), timeout=240)
    assert done.returncode == 2, done.stderr
    assert "can't be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert run_training(recipe, out, "--resume").returncode == 0
    assert_same(out, straight)


@pytest.mark.slow
def test_training_ends_early_and_keeps_the_best(pairs, checkpoints, tmp_path):
    config = TrainConfig(
        pairs=str(pairs), checkpoint=str(checkpoints["bert"]), updates=60, batch=16, buckets=(128,), micro_tokens=2048,
        learning_rate=1.0, warmup=0.0, evaluate_every=2, patience=2, bundle=None,
    )  # fmt: skip
    result = train(config, tmp_path / "out")
    looks = looks_of(tmp_path / "out")
    best = result.run["result"]["best_update"]
    assert result.run["result"]["stopped_early"]
    assert max(looks) < 60
    assert sum(step > best for step in looks) == 2
    assert best == max(looks, key=lambda step: (looks[step]["accuracy"], -looks[step]["loss"]))


def test_a_run_of_some_minutes_ends_as_if_all_updates_were_made(recipe, tmp_path):
    config = load_recipe(recipe, ["max_minutes=0.02", "updates=100000", "evaluate_every=null"])
    result = train(config, tmp_path / "out")
    done = result.run["result"]["updates"]
    assert 0 < done < 100_000
    assert sorted(looks_of(tmp_path / "out")) == [0, done]
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()


def test_without_validation_pairs_the_last_weights_are_kept(checkpoints, tmp_path):
    file = write(tmp_path / "tasks.jsonl", [choice(number) | {"split": "train"} for number in range(4)])
    settings = {"checkpoint": str(checkpoints["roberta"]), "updates": 3, "batch": 4, "buckets": (64,), "bundle": None}
    config = TrainConfig(pairs=str(file), **settings)
    result = train(config, tmp_path / "out")
    assert result.run["data"]["rows"]["validation"] == 0
    assert result.run["result"]["best_update"] == 3
    before, after = (
        load_file(folder / "model.safetensors") for folder in (checkpoints["roberta"], tmp_path / "out/model")
    )
    changed = [name for name in before if (before[name] != after[name]).any()]
    assert before.keys() == after.keys()
    assert len(changed) > len(before) - 4
    with pytest.raises(InputError, match="patience=2 needs validation pairs"):
        train(config.model_copy(update={"patience": 2}), tmp_path / "other")


@pytest.mark.slow
def test_an_mpnet_without_a_head_trains_and_is_one_that_transformers_loads(recipe, tmp_path):
    import transformers

    start = make_mpnet(tmp_path / "mpnet")
    transformers.MPNetModel.from_pretrained(start, add_pooling_layer=False).save_pretrained(start)  # its names are bare
    before = load_file(start / "model.safetensors")
    # Without validation pairs the last weights are kept, not those of the best look.
    rows = write(tmp_path / "tasks.jsonl", [choice(number) | {"split": "train"} for number in range(4)])
    settings = ("--set", f"checkpoint={start}", "--set", f"pairs={rows}")
    done = run_training(recipe, tmp_path / "out", *settings, updates=3, batch=4)
    assert done.returncode == 0, done.stderr
    after = weights_of(tmp_path / "out")
    assert all((after[f"mpnet.{name}"] != value).any() for name, value in before.items() if not name.endswith("k.bias"))
    _, report = transformers.MPNetForSequenceClassification.from_pretrained(
        tmp_path / "out" / "model", output_loading_info=True
    )
    assert not any(report.values())


def test_two_runs_in_one_folder_are_refused(recipe, tmp_path):
    refused = []

    def on_update(update):
        if update.step == 1:
            with pytest.raises(InputError, match="another process is training") as error:
                train(load_recipe(recipe), tmp_path / "out", resume=True)
            refused.append(error)

    train(load_recipe(recipe, ["updates=2"]), tmp_path / "out", on_update=on_update)
    assert refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("updates=many", "updates"),
        ("updates=0", "updates"),
        ("speed=1", "speed"),
        ("buckets=[64,32]", "buckets"),
        ('schedule="slow"', "schedule"),
        ("pairs=nowhere", "no pairs at nowhere"),
        ("checkpoint=nowhere", "no checkpoint at nowhere"),
        ("buckets=[1024]", "takes 512"),
        ("fsdp=3", "fsdp=3 does not divide"),
        ("l2_weight=0", "nothing to learn"),
    ],
)
def test_a_mistake_in_an_override_names_the_key(recipe, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        train(load_recipe(recipe, [settings]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def get_config(:", "SyntaxError"),
        ("x = 1", "no function get_config"),
        ("def get_config():\n    return 1", "returned int"),
        ("def get_config():\n    return 1 / 0", "ZeroDivisionError"),
        (
            "from cappy_select.train.config import TrainConfig\n"
            "def get_config():\n    return TrainConfig(pairs='p', checkpoint='c', batch=-1)",
            "batch",
        ),
    ],
)
def test_a_mistake_in_a_recipe_is_said_with_its_file(tmp_path, content, message):
    file = tmp_path / "recipe.py"
    file.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        load_recipe(file)
    assert str(file) in str(error.value)
    with pytest.raises(InputError, match="no recipe at"):
        load_recipe(tmp_path / "none.py")


def test_an_occupied_folder_is_left_alone(recipe, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no run"):
        train(load_recipe(recipe), tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


@pytest.fixture
def begun(recipe, tmp_path):
    """A run that failed at update 12, with a checkpoint of update 10 or later."""

    class Stop(Exception):
        pass

    def stop(update):
        if update.step == 12:
            raise Stop

    with pytest.raises(Stop):
        train(load_recipe(recipe), tmp_path / "out", on_update=stop)
    return tmp_path / "out"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # tensorstore leaves futures behind
def test_checkpoints_that_are_gone_or_all_damaged_are_said(begun, recipe):
    for folder in (begun / "checkpoints" / "last").iterdir():
        damage(folder, "truncated")
    with pytest.raises(DataError, match=r"no checkpoint in .* can be read"):
        train(load_recipe(recipe), begun, resume=True)
    assert len(list((begun / "checkpoints" / "last").iterdir())) == 2  # nothing is thrown away


@pytest.mark.slow
def test_a_run_goes_on_from_its_own_start_only(begun, recipe, checkpoints):
    stages = []
    with pytest.raises(InputError, match="another checkpoint than tiny-roberta"):
        train(load_recipe(recipe, [f"checkpoint={checkpoints['roberta']}"]), begun, resume=True)
    copy = begun.parent / "copy"
    shutil.copytree(checkpoints["bert"], copy)  # the same by content
    train(load_recipe(recipe, [f"checkpoint={copy}", "updates=40"]), begun, resume=True, on_stage=stages.append)
    assert any(stage.startswith("going on after update ") for stage in stages), stages


@pytest.mark.slow
def test_a_damaged_log_costs_its_lines_only(begun, recipe):
    lines = (begun / "log.jsonl").read_text().splitlines()
    (begun / "log.jsonl").write_text("\n".join(["{broken", *lines[1:5], "", "[]", *lines[5:]]))
    result = train(load_recipe(recipe), begun, resume=True)
    assert result.run["result"]["updates"] == 40
    assert result.run["result"]["before"] is None


@pytest.mark.slow
def test_damaged_tokens_are_made_again(begun, straight, recipe):
    (file,) = (begun / "tokens").glob("train-*/ids.bin")
    file.write_bytes(file.read_bytes()[:1000])
    train(load_recipe(recipe), begun, resume=True)
    assert_same(begun, straight)


def test_damaged_pairs_are_said_and_leave_no_run(pairs, recipe, tmp_path):
    copy = tmp_path / "pairs"
    shutil.copytree(pairs, copy)
    (shard,) = copy.glob("train-*")
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"train-00000-of-00001\.parquet is missing or damaged"):
        train(load_recipe(recipe, [f"pairs={copy}"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_no_number_ends_the_run(recipe, tmp_path):
    with pytest.raises(DataError, match="training diverged at update"):
        train(load_recipe(recipe, ["learning_rate=1e30", "warmup=0"]), tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()
    with pytest.raises(InputError, match="learning_rate"):
        load_recipe(recipe, ["learning_rate=Infinity"])


@pytest.mark.slow
def test_a_bundle_can_be_asked_for_later(straight, recipe, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(straight, out)
    result = train(load_recipe(recipe, ["bundle=fp16"]), out, resume=True)
    assert result.run["result"]["bundle"]["precision"] == "fp16"
    assert json.loads((out / "run.json").read_text())["config"]["bundle"] == "fp16"
    assert Scorer.load(out / "bundle").bundle.manifest.precision == "fp16"


def test_a_signal_in_the_first_look_leaves_a_checkpoint_too(recipe, tmp_path):
    stop = tmp_path / "stop.py"
    stop.write_text(
        recipe.read_text()
        + f"""
import signal, threading, time
from pathlib import Path

def stop():
    while not Path({str(tmp_path / "out" / "log.jsonl")!r}).exists():
        time.sleep(0.001)
    signal.raise_signal(signal.SIGINT)

threading.Thread(target=stop, daemon=True).start()
"""
    )
    done = run_training(stop, tmp_path / "out")
    assert done.returncode == 130, done.stderr
    assert "stopped after update 0" in done.stderr
    assert (tmp_path / "out" / "checkpoints" / "last" / "0").is_dir()

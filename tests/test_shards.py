"""Pairs are what their manifest and their schema say, before anything is trained on them."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trainings import log_of, pairs, recipe, run_training  # noqa: F401 - fixtures

from cappy_select.adapt.training import groups_of
from cappy_select.bundle.bundle import EMBEDDED, load_bundle
from cappy_select.core.errors import InputError
from cappy_select.data.folder import hashed
from cappy_select.data.shards import check_shards, read_pairs, shards_of
from cappy_select.data.summary import summary_of
from cappy_select.scorer.encoding import PairEncoder
from cappy_select.train.tokens import tokenised

COLUMNS = ["instruction", "response", "score", "task", "group"]


@pytest.fixture
def folder(tmp_path, pairs) -> Path:  # noqa: F811
    shutil.copytree(pairs, tmp_path / "copied")
    return tmp_path / "copied"


def shard(folder: Path, side: str = "train") -> Path:
    return next(folder.glob(f"{side}-*.parquet"))


def changed(folder: Path, change, side: str = "train", *, listed: bool = True) -> Path:
    """Write a shard anew; `listed`: with a manifest that is of it."""
    file = shard(folder, side)
    pq.write_table(change(pq.read_table(file)), file)
    manifest = json.loads((folder / "manifest.json").read_text())
    for each in manifest["files"]:
        if each["name"] == file.name:
            each |= hashed(file) if listed else {"size_bytes": file.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return file


def column(name: str, kind, value, at: int = 2):
    def change(table):
        values = table[name].to_pylist()
        values[at] = value(values[at]) if callable(value) else value
        return table.set_column(table.schema.get_field_index(name), name, pa.array(values, kind))

    return change


def turned(table):
    scores = pa.array([1 - score for score in table["score"].to_pylist()], pa.float32())
    return table.set_column(table.schema.get_field_index("score"), "score", scores)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (column("score", pa.float32(), math.nan), ":3: a score is from 0 to 1, got nan"),
        (column("score", pa.float32(), math.inf), ":3: a score"),
        (column("score", pa.float32(), -0.5), ":3: a score"),
        (column("score", pa.float64(), 1e30), ":3: a score"),
        (column("score", pa.float32(), None), ":3 has no score"),
        (column("response", pa.string(), None), ":3 has no response"),
        (column("group", pa.string(), None), ":3 has no group"),
        (
            lambda t: t.set_column(1, "response", t["response"].cast(pa.binary())),
            "must be text, it is binary",
        ),
        (lambda t: t.set_column(2, "score", pa.array(["1"] * len(t))), "'score' must be a number"),
        (lambda t: t.drop(["task"]), "no column 'task'"),
    ],
)
def test_a_row_that_can_not_be_trained_on_is_named(folder, change, words):
    file = changed(folder, change)
    with pytest.raises(InputError) as caught:
        for _ in read_pairs(file, COLUMNS):
            pass
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_shard_is_the_file_that_the_manifest_is_of(folder):
    changed(folder, turned, listed=False)
    with pytest.raises(InputError, match="SHA-256"):
        check_shards(folder, shards_of(folder))
    with pytest.raises(InputError, match="SHA-256"):
        summary_of(folder)


def test_a_shard_that_is_no_parquet_says_so(folder):
    shard(folder).write_bytes(b"PAR1 no PAR1")
    with pytest.raises(InputError, match="can't be read as Parquet"):
        list(read_pairs(shard(folder), COLUMNS))
    with pytest.raises(InputError, match="can't be read as Parquet"):
        groups_of(folder)


@pytest.mark.parametrize("name", ["../train-00000-of-00001.parquet", "/etc/passwd", 3])
def test_a_manifest_names_no_file_of_elsewhere(folder, name):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][0]["name"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="no shard's name"):
        shards_of(folder)


@pytest.mark.parametrize(
    ("change", "side", "listed", "words"),
    [
        (turned, "train", False, "SHA-256"),
        (column("score", pa.float32(), math.nan), "train", True, "a score is from 0 to 1, got nan"),
        (column("score", pa.float32(), math.nan), "validation", True, "a score is from 0 to 1, got nan"),
        (lambda t: t.slice(0, len(t) - 1), "train", True, "its manifest says"),
        (lambda t: t.drop(["group"]), "train", True, "no column 'group'"),
    ],
)
def test_no_update_is_made_of_pairs_that_are_wrong(folder, tmp_path, recipe, change, side, listed, words):  # noqa: F811
    changed(folder, change, side, listed=listed)
    done = run_training(recipe, tmp_path / "run", "--set", f"pairs={folder}")
    said = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert words in said
    assert "learning_rate" not in said
    assert "defect" not in said
    assert not (tmp_path / "run" / "log.jsonl").exists() or log_of(tmp_path / "run") == []


def test_tokens_are_of_the_very_files_that_are_there(folder, tmp_path):
    encoder = PairEncoder.of(load_bundle(EMBEDDED))

    def scores():
        return tokenised(folder, "train", encoder, "tokenizer", tmp_path / "tokens").scores

    first = scores().copy()
    assert (scores() == first).all()
    changed(folder, turned)  # the build's fingerprint stays
    assert not (scores() == first).all()
    changed(folder, turned)
    for made in (tmp_path / "tokens").glob("train-*"):
        np.save(made / "scores.npy", np.full(len(first), math.nan, np.float32))
    assert np.isfinite(scores()).all()


def test_weights_that_are_no_numbers_are_not_started_from(tmp_path, recipe, checkpoints):  # noqa: F811
    from safetensors.numpy import load_file, save_file

    start = tmp_path / "start"
    shutil.copytree(checkpoints["bert"], start)
    tensors = load_file(start / "model.safetensors")
    name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[name] = tensors[name] * math.nan
    save_file(tensors, start / "model.safetensors", {"format": "pt"})
    done = run_training(recipe, tmp_path / "run", "--set", f"checkpoint={start}")
    assert done.returncode == 2
    assert "no finite numbers" in " ".join(done.stderr.split())


def test_a_scorer_that_diverges_ends_the_run_with_the_reason(tmp_path, recipe):  # noqa: F811
    done = run_training(recipe, tmp_path / "run", learning_rate=1e38, evaluate_every=1, warmup=0)
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert "diverged" in said
    assert "accuracy nan" not in said
    assert not (tmp_path / "run" / "model").exists()

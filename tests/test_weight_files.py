"""One rule says which files of a checkpoint's folder hold its weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cappy_select.core.errors import ExportError, InputError
from cappy_select.export.checkpoint import load_checkpoint
from cappy_select.train.weights import read_checkpoint

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path, checkpoints) -> Path:
    shutil.copytree(checkpoints["bert"], tmp_path / "bert")
    return tmp_path / "bert"


def in_shards(folder: Path) -> dict[str, str]:
    """The weights in two files with an index, whose map is returned."""
    tensors = load_file(folder / WHOLE)
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in files.items():
        save_file({name: tensors[name] for name in held}, folder / file, {"format": "pt"})
    (folder / WHOLE).unlink()
    listed = {name: file for file, held in files.items() for name in held}
    write_index(folder, listed)
    return listed


def write_index(folder: Path, listed: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": listed}))


def both(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings that training starts from, and those that are exported."""
    exported = load_checkpoint(folder).model.get_input_embeddings().weight.detach().numpy()
    return read_checkpoint(folder)[1]["word"], exported


@pytest.mark.parametrize("sharded", [False, True])
def test_stray_files_change_neither_training_nor_export(folder, sharded):
    right = both(folder)[0]
    zeros = {name: np.zeros_like(value) for name, value in load_file(folder / WHOLE).items()}
    if sharded:
        in_shards(folder)
    for name in ("model_old.safetensors", "zz.safetensors", "model-00003-of-00003.safetensors", "a.safetensors"):
        save_file(zeros, folder / name, {"format": "pt"})
    (folder / "pytorch_model.bin").write_bytes(b"no weights")
    assert all((found == right).all() for found in both(folder))


def refused(folder: Path, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_checkpoint(folder)
    with pytest.raises(ExportError, match=words):
        load_checkpoint(folder)


def test_files_of_which_nothing_says_whose_they_are_are_refused(folder):
    (folder / WHOLE).rename(folder / "one.safetensors")
    shutil.copyfile(folder / "one.safetensors", folder / "two.safetensors")
    refused(folder, r"expected model\.safetensors.*one\.safetensors, two\.safetensors")


@pytest.mark.parametrize(
    "name", ["../bert/model-00001-of-00002.safetensors", "/etc/x.safetensors", "pytorch_model.bin"]
)
def test_an_index_lists_files_of_its_own_folder(folder, name):
    listed = in_shards(folder)
    write_index(folder, listed | {next(iter(listed)): name})
    refused(folder, "only list")


def test_an_index_and_its_files_agree(folder):
    listed = in_shards(folder)
    first = next(iter(listed))
    write_index(folder, {name: file for name, file in listed.items() if name != first})
    refused(folder, "differ")
    write_index(folder, listed)
    (folder / listed[first]).unlink()
    refused(folder, "not there")
    for wrong in ([], {}, {first: 3}):
        write_index(folder, wrong)
        refused(folder, "index of weights")


def test_no_other_file_may_redirect_the_weights(folder):
    config = json.loads((folder / "config.json").read_text())
    shutil.copyfile(folder / WHOLE, folder / "other.safetensors")
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "other.safetensors"}))
    refused(folder, "transformers_weights")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "adapter")

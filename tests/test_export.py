from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import awkward_pairs, make_bert, make_roberta

from cappy_select import InputError, Scorer
from cappy_select.bundle.bundle import Bundle, load_bundle
from cappy_select.core import BundleNotFound, ExportError
from cappy_select.export import Card, export_checkpoint
from cappy_select.export.checkpoint import load_checkpoint
from cappy_select.export.parity import torch_scores
from cappy_select.export.quantize import column_scales


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_scores_equal_those_of_torch(kind, checkpoints, bundles):
    pairs = awkward_pairs(200)
    expected = torch_scores(load_checkpoint(checkpoints[kind]), pairs)
    found = Scorer(bundles[kind]).score_detailed(pairs).scores
    assert expected.std() > 0.01  # not one constant
    assert np.abs(expected - found).max() <= 1e-4


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("make", [make_bert, make_roberta])
def test_scores_equal_those_of_torch_at_base_size(make, tmp_path):
    size = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    size["initializer_range"] = 0.05
    folder = make(tmp_path / "base", **size)
    bundle = export_checkpoint(folder, tmp_path / "bundle")
    pairs = awkward_pairs(60)
    expected = torch_scores(load_checkpoint(folder), pairs)
    found = Scorer(bundle).score_detailed(pairs).scores
    assert expected.std() > 0.01
    assert np.abs(expected - found).max() <= 1e-4


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_lower_precision_stays_close_and_is_smaller(kind, precision, checkpoints, bundles, tmp_path):
    bundle = export_checkpoint(checkpoints[kind], tmp_path / "out", precision=precision)
    pairs = awkward_pairs(60)
    exact = Scorer(bundles[kind]).score_detailed(pairs).scores
    close = Scorer(bundle).score_detailed(pairs).scores
    assert 0 < np.abs(exact - close).max() < 0.1
    assert np.corrcoef(exact, close)[0, 1] > 0.99
    assert size(bundle) < size(bundles[kind]) * 0.8
    assert bundle.manifest.precision == precision


def test_attention_fused_in_every_layer(bundles):
    for bundle in bundles.values():
        kinds = [node.op_type for node in onnx.load(bundle.path / "model.onnx").graph.node]
        assert kinds.count("Attention") == 2
        assert "Softmax" not in kinds


def test_int8_quantises_every_encoder_product_and_leaves_the_head(checkpoints, tmp_path):
    bundle = export_checkpoint(checkpoints["roberta"], tmp_path / "out", precision="int8")
    kinds = [node.op_type for node in onnx.load(bundle.path / "model.onnx").graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 2 * 6  # q, k, v, attention output, two of the feed-forward
    assert "MatMul" not in kinds
    assert kinds.count("Gemm") == 2  # the head


@given(st.integers(0, 2**32 - 1), st.integers(1, 65), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_no_pair_of_neighbouring_weights_can_saturate_16_bits(seed, inputs, outputs):
    weight = np.random.default_rng(seed).standard_t(2, (inputs, outputs)).astype(np.float32)
    quantised = np.abs(np.rint(weight / column_scales(weight)))
    assert quantised.max() <= 127
    padded = np.vstack([quantised, np.zeros((inputs % 2, outputs))])
    assert 255 * (padded[0::2] + padded[1::2]).max() < 2**15
    assert quantised.max() >= 63  # and the range is used


def test_the_manifest_says_what_was_measured_and_where_it_comes_from(checkpoints, tmp_path):
    card = Card(name="mine", version="2", provenance={"data": "tickets"}, licenses={"weights": "MIT"})
    manifest = export_checkpoint(checkpoints["bert"], tmp_path / "out", card=card).manifest
    assert (manifest.name, manifest.version, manifest.max_length) == ("mine", "2", 512)
    assert manifest.architecture == "bert 2x32"
    assert manifest.gates["max_abs_diff"] <= 1e-4
    assert manifest.provenance["data"] == "tickets"
    assert manifest.provenance["weights"] == "model.safetensors"
    assert manifest.licenses == {"weights": "MIT"}


def test_roberta_has_two_positions_less_than_its_table(bundles):
    assert bundles["roberta"].manifest.max_length == 512


def size(bundle: Bundle) -> int:
    return (bundle.path / "model.onnx").stat().st_size


def edit_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """The weights in memory: what `load_file` gives is mapped from the file that is about to be overwritten."""
    return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}


def several_labels(folder: Path) -> None:
    edit_config(folder, id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})


def without_head(folder: Path) -> None:
    weights = loaded(folder)
    kept = {name: tensor for name, tensor in weights.items() if "classifier" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def with_nan(folder: Path) -> None:
    weights = loaded(folder)
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut_weights(folder: Path) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[: len(raw) // 2])


def only_flax(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "flax_model.msgpack")


DAMAGES = {
    "several labels": (several_labels, "2 labels"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer of .* can't be read"),
    "another kind of model": (lambda f: edit_config(f, model_type="t5"), "of type 't5'"),
    "another task": (lambda f: edit_config(f, architectures=["BertForMaskedLM"]), "BertForMaskedLM"),
    "labels that are no number": (lambda f: edit_config(f, num_labels="x", id2label=5), "x labels"),
    "architectures that are no list": (lambda f: edit_config(f, architectures=7, model_type="x"), "unnamed"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "a config that is no JSON": (lambda f: (f / "config.json").write_text("x"), "is not JSON"),
    "cut weights": (cut_weights, "can't be loaded"),
    "weights of another shape": (lambda f: edit_config(f, hidden_size=48), "can't be loaded"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    "no head": (without_head, "lacks .* weights.*classifier"),
    "not a number": (with_nan, "not finite"),
    "Flax weights": (only_flax, "msgpack"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_that_cannot_be_exported_is_one_clear_error_and_leaves_nothing(damage, checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    break_it, message = DAMAGES[damage]
    break_it(folder)
    with pytest.raises(ExportError, match=message):
        export_checkpoint(folder, tmp_path / "out" / "bundle")
    assert [path.name for path in tmp_path.iterdir()] in (["checkpoint"], ["checkpoint", "out"], ["out", "checkpoint"])
    assert not list((tmp_path / "out").glob("*"))
    assert not list((tmp_path / "out").glob(".*"))


def test_a_pickled_checkpoint_is_read_with_weights_only(checkpoints, bundles, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    torch.save(loaded(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    scorer = Scorer(export_checkpoint(folder, tmp_path / "out"))
    np.testing.assert_array_equal(scorer.score("q", ["a"]), Scorer(bundles["bert"]).score("q", ["a"]))


class _Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_runs_code_is_refused(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    (folder / "model.safetensors").unlink()
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump({"x": _Evil(tmp_path / "owned")}, file)
    with pytest.raises(ExportError, match="can't be loaded"):
        export_checkpoint(folder, tmp_path / "out")
    torch.save({"x": _Evil(tmp_path / "owned")}, folder / "pytorch_model.bin")
    with pytest.raises(ExportError, match="can't be loaded"):
        export_checkpoint(folder, tmp_path / "out")
    assert not (tmp_path / "owned").exists()


def test_code_of_a_checkpoint_is_not_run(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    edit_config(folder, auto_map={"AutoModelForSequenceClassification": "evil.Model", "AutoConfig": "evil.Config"})
    (folder / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'owned')!r})")
    export_checkpoint(folder, tmp_path / "out")
    assert not (tmp_path / "owned").exists()


def test_only_a_bundle_is_ever_replaced(checkpoints, bundles, tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "notes").write_text("x")
    monkeypatch.chdir(precious)
    for out in (precious, Path(), checkpoints["bert"]):
        with pytest.raises(InputError, match="holds other things"):
            export_checkpoint(checkpoints["bert"], out, overwrite=True)
    assert (precious / "notes").read_text() == "x"
    assert (checkpoints["bert"] / "config.json").exists()

    old = shutil.copytree(bundles["roberta"].path, tmp_path / "old")
    (tmp_path / "link").symlink_to(old)
    for out in (old, tmp_path / "link"):
        with pytest.raises(InputError, match="exists already"):
            export_checkpoint(checkpoints["bert"], out)
        assert load_bundle(old).manifest.architecture == "roberta 2x32"
    export_checkpoint(checkpoints["bert"], tmp_path / "link", overwrite=True)
    assert load_bundle(old).manifest.architecture == "bert 2x32"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "old", "precious"]


def test_a_folder_that_cannot_be_written_is_said_before_the_work(checkpoints):
    stages = []
    for out in ("/proc/nowhere/out", "x" * 300, f"{checkpoints['bert'] / 'config.json'}/out"):
        with pytest.raises(InputError, match="can't be written"):
            export_checkpoint(checkpoints["bert"], out, on_stage=stages.append)
    assert stages == []


def test_few_answers_judge_a_precision_only_where_no_clear_winner_can_change(checkpoints, tmp_path):
    pairs = awkward_pairs(60)
    one_group = recorded(tmp_path / "answers.jsonl", [(pairs[0][0], [response for _, response in pairs])])
    export = partial(export_checkpoint, out=tmp_path / "out", precision="int8", calibration=one_group)
    assert export(checkpoints["bert"]).manifest.gates["max_abs_diff"] < 0.005

    folder = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    weights = loaded(folder)
    weights["classifier.weight"] *= 10  # and with them the differences
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match=r"can't be judged: in [01] of 1 groups"):
        export(folder, overwrite=True)
    assert export(folder, overwrite=True, precision="fp32").manifest.gates["clear_groups"] <= 1


def test_scores_that_fail_the_parity_check_are_refused(checkpoints, tmp_path, monkeypatch):
    """The tolerance is the release's promise; a narrower one stands for weights that quantise badly."""
    from cappy_select.export import parity

    monkeypatch.setitem(parity.TOLERANCES, "int8", parity.Tolerance(1e-6, 0.0))
    with pytest.raises(ExportError, match="int8 changes the scores too much"):
        export_checkpoint(checkpoints["bert"], tmp_path / "out", precision="int8")
    assert list(tmp_path.iterdir()) == []


def recorded(path, groups):
    rows = [
        {"id": str(n), "instruction": asked, "candidates": [{"model": "m", "response": r} for r in responses]}
        for n, (asked, responses) in enumerate(groups)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_calibration_on_recorded_answers_is_what_is_measured(checkpoints, tmp_path):
    pairs = awkward_pairs(60)
    answers = recorded(tmp_path / "answers.jsonl", [(pairs[n][0], [p[1] for p in pairs[n : n + 6]]) for n in range(40)])
    seen = []
    manifest = export_checkpoint(
        checkpoints["bert"], tmp_path / "out", precision="int8", calibration=answers,
        on_progress=lambda done, total: seen.append((done, total)),
    ).manifest  # fmt: skip
    assert manifest.gates["pairs"] == 240
    assert 10 <= manifest.gates["clear_groups"] <= 40
    assert manifest.provenance["calibration"] == "answers.jsonl"
    assert seen == [(1, 240)] * 240


@pytest.mark.parametrize(("content", "message"), [("", "no answers"), ("{", "is not JSON"), (None, "no such file")])
def test_calibration_that_cannot_be_read_is_said_before_the_work(checkpoints, tmp_path, content, message):
    file, stages = tmp_path / "answers.jsonl", []
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=message):
        export_checkpoint(checkpoints["bert"], tmp_path / "out", calibration=file, on_stage=stages.append)
    assert stages == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("groups", "flips", "refused"), [(20, 1, False), (20, 2, True), (300, 3, False), (300, 4, True)]
)
def test_one_winner_in_a_hundred_may_change_and_one_in_any_set(monkeypatch, groups, flips, refused):
    from cappy_select.export import parity

    expected = np.tile(np.float32([0.9, 0.8]), groups)
    found = expected.copy()
    for group in range(flips):
        found[2 * group : 2 * group + 2] = [0.84, 0.86]

    class Given:
        def __init__(self, *_, **__): ...

        def score_detailed(self, _):
            return SimpleNamespace(scores=found)

    monkeypatch.setattr(parity, "Scorer", Given)
    monkeypatch.setattr(parity, "torch_scores", lambda *_: expected)
    judged = partial(parity.measure, None, None, "int8", [("q", ["a", "b"])] * groups)
    if refused:
        with pytest.raises(ExportError, match=f"{flips} of {groups} winners changed"):
            judged()
    else:
        assert judged()["winner_agreement"] == 1 - flips / groups


@pytest.mark.parametrize("source", ["no/such/folder", "./nothing", "nothing"])
def test_a_checkpoint_that_is_not_there(source, tmp_path):
    with pytest.raises(BundleNotFound, match="hf://org/name"):
        export_checkpoint(source, tmp_path / "out")


def test_a_killed_export_leaves_no_bundle(checkpoints, tmp_path):
    script = (
        "import sys, os, signal\n"
        "from cappy_select.export import export_checkpoint\n"
        "def die(stage):\n"
        "    if 'comparing' in stage: os.kill(os.getpid(), signal.SIGKILL)\n"
        "export_checkpoint(sys.argv[1], sys.argv[2], on_stage=die)\n"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", script, str(checkpoints["bert"]), str(out)], capture_output=True)
    assert done.returncode == -9
    assert not out.exists()
    assert not list(tmp_path.rglob("manifest.json"))  # not even in what the kill left behind
    (left,) = tmp_path.iterdir()
    long_ago = time.time() - 7200
    os.utime(left, (long_ago, long_ago))
    export_checkpoint(checkpoints["bert"], out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_the_extra_the_error_names_it(checkpoints, tmp_path):
    script = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from cappy_select.export import export_checkpoint\n"
        "export_checkpoint(sys.argv[1], sys.argv[2])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(checkpoints["bert"]), str(tmp_path / "out")], capture_output=True, text=True
    )
    assert "MissingExtra: exporting a checkpoint needs the package 'torch'" in done.stderr
    assert "cappy-select[export]" in done.stderr

"""A run that starts from a bundle: the weights in its graph are the ones that were exported, and score like it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from fakehub import COMMIT, serve_hub
from flax import nnx
from tiny import WORDS, make_bert, make_roberta
from tokenizers import Tokenizer
from trainings import environment, looks_of

from cappy_select import InputError, Scorer
from cappy_select.bundle.bundle import EMBEDDED, Bundle, is_bundle, load_bundle
from cappy_select.bundle.writing import save_bundle
from cappy_select.core import BundleDamaged
from cappy_select.export import export_checkpoint
from cappy_select.export.checkpoint import load_checkpoint
from cappy_select.export.parity import torch_scores
from cappy_select.train.bundled import read_bundle
from cappy_select.train.config import TrainConfig
from cappy_select.train.encoder import Encoder
from cappy_select.train.job import train
from cappy_select.train.start import Start, starting_point
from cappy_select.train.weights import read_checkpoint, write_checkpoint

MAKE = {"bert": make_bert, "roberta": make_roberta}
TOLERANCES = {"fp32": 1e-4, "fp16": 5e-3, "int8": 0.05}  # of scores
NOTED = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.3}
PAIRS = [(" ".join(WORDS[i : i + 9]), " ".join(WORDS[2 * i : 2 * i + 1 + i % 4])) for i in range(20)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Path]:
    """Checkpoints as training leaves them: no two parameters have equal values, and the tracer shares none."""
    root, folders = tmp_path_factory.mktemp("trained"), {}
    for kind, make in MAKE.items():
        folders[kind] = make(root / kind, **NOTED)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folders[kind])
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter += 0.1 * torch.randn_like(parameter)
                parameter *= 4 if name in ("classifier.weight", "classifier.out_proj.weight") else 1  # clear winners
        model.save_pretrained(folders[kind])
    return folders


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Path:
    """To measure an export on: fewer and shorter ones than its own."""
    rows = [
        {"id": str(i), "instruction": instruction, "candidates": [{"model": "m", "response": r} for r in responses]}
        for i, (instruction, responses) in enumerate((f"which {word}", [word, "yes no maybe"]) for word in WORDS[:20])
    ]
    file = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def exported(trained, answers, tmp_path_factory):
    """The bundle of a kind in a precision, made once."""
    root, made = tmp_path_factory.mktemp("exported"), {}

    def bundle_of(kind: str, precision: str) -> Bundle:
        name = f"{kind}-{precision}"
        if name not in made:
            made[name] = export_checkpoint(trained[kind], root / name, precision=precision, calibration=answers)
        return made[name]

    return bundle_of


def start_of(checkpoint: object, **settings: object) -> Start:
    return starting_point(TrainConfig(pairs="-", checkpoint=str(checkpoint), **settings))


def jax_scores(start: Start, pairs: list[tuple[str, str]]) -> np.ndarray:
    tokenizer = Tokenizer.from_buffer(start.tokenizer)
    tokenizer.no_truncation()
    tokenizer.enable_padding(pad_id=start.shape.pad_token_id)
    model = Encoder(start.shape, jax.random.key(0))
    for name in model.weights:
        model.weights[name][...] = jnp.asarray(start.weights[name])
    rows = tokenizer.encode_batch(pairs)
    ids, types, mask = (np.array([getattr(row, of) for row in rows]) for of in ("ids", "type_ids", "attention_mask"))
    typed = types if start.shape.model_type == "bert" else 0 * types
    return np.asarray(nnx.jit(Encoder.__call__)(model, ids, typed, mask.sum(axis=1)))


def changed(bundle: Bundle, folder: Path, change) -> Bundle:
    """A copy of a bundle with another graph; whole, by its manifest."""
    shutil.copytree(bundle.path, folder)
    model = onnx.load(folder / "model.onnx")
    onnx.save(change(model) or model, folder / "model.onnx")
    return save_bundle(folder, bundle.manifest.model_dump(exclude={"files"}))


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow), "int8"])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_bundle_is_the_start_that_its_checkpoint_is(kind, precision, trained, exported):
    bundle = exported(kind, precision)
    start = start_of(bundle.path)
    shape, weights = read_checkpoint(trained[kind])
    assert start.shape == shape
    assert start.shape.hidden_dropout_prob == 0.2
    assert start.is_scorer
    assert start.weights.keys() == weights.keys()
    for name, value in weights.items():
        bound = {"fp32": 0.0, "fp16": 1e-3, "int8": 0.01}[precision] * np.abs(value).max()
        assert np.abs(start.weights[name] - value).max() <= bound, name
    expected = Scorer(bundle, cache=False).score_detailed(PAIRS).scores
    assert expected.std() > 0.01
    assert np.abs(jax_scores(start, PAIRS) - expected).max() <= TOLERANCES[precision]


def test_parameters_that_the_file_stores_once_are_all_found(checkpoints, bundles):
    for kind, bundle in bundles.items():
        _, weights = read_checkpoint(checkpoints[kind])
        stored = {tensor.name for tensor in onnx.load(bundle.path / "model.onnx").graph.initializer}
        assert len([name for name in stored if "LayerNorm" in name]) == 2  # of two layers' five norms
        _, found = read_bundle(bundle)
        assert all((found[name] == value).all() for name, value in weights.items())


def test_a_bundle_of_before_has_the_usual_dropout(exported, tmp_path):
    def forget(model):
        del model.metadata_props[:]

    shape, _ = read_bundle(changed(exported("roberta", "fp32"), tmp_path / "old", forget))
    assert (shape.hidden_dropout_prob, shape.attention_probs_dropout_prob, shape.classifier_dropout) == (0.1, 0.1, None)
    assert shape.pad_token_id == 1


def test_the_embedded_default_is_a_start(tmp_path, monkeypatch):
    config = TrainConfig(pairs="-", checkpoint="embedded")
    start = starting_point(config)
    bundle = load_bundle(EMBEDDED)
    assert start.is_scorer
    assert start.facts(config)["bundle"] == {"name": str(bundle), "digest": bundle.digest}
    assert bundle.manifest.architecture == (
        f"{start.shape.model_type} {start.shape.num_hidden_layers}x{start.shape.hidden_size}"
    )
    pairs = [
        ("Is this review positive? The film was warm and funny.", "yes"),
        ("Is this review positive? The film was warm and funny.", "no"),
        ("What is the capital of Australia?", "Canberra"),
        ("Summarise: the council voted for repairs of the bridge in spring.", "The bridge will be repaired."),
    ]
    expected = Scorer(bundle, cache=False).score_detailed(pairs).scores
    assert np.abs(jax_scores(start, pairs) - expected).max() <= 0.05
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded").mkdir()
    with pytest.raises(InputError, match="embedded is no checkpoint"):  # an existing path wins
        starting_point(config)


def test_a_run_from_a_bundle_ends_in_a_checkpoint_and_a_bundle_that_agree(exported, pairs, tmp_path):
    begun = exported("bert", "int8")
    config = TrainConfig(
        pairs=str(pairs), checkpoint=str(begun.path), updates=6, batch=16, micro_tokens=1024, buckets=(64,),
        learning_rate=3e-3, evaluate_every=None, validation_rows=None, dropout=False,
    )  # fmt: skip
    result = train(config, tmp_path / "out")
    assert result.run["start"]["bundle"]["digest"] == begun.digest
    rows = pq.read_table(pairs / "validation-00000-of-00001.parquet").to_pylist()
    before = Scorer(begun).score_detailed([(row["instruction"], row["response"]) for row in rows]).scores
    squared = np.mean(np.square(before - [row["score"] for row in rows]))
    assert result.run["result"]["before"]["loss"] == pytest.approx(squared, rel=0.02)
    assert looks_of(tmp_path / "out")[0]["loss"] > looks_of(tmp_path / "out")[6]["loss"]
    loaded = load_checkpoint(tmp_path / "out" / "model")
    ended = load_bundle(tmp_path / "out" / "bundle")
    assert ended.manifest.provenance["training"]["start"]["bundle"]["digest"] == begun.digest
    assert ended.manifest.max_length == begun.manifest.max_length
    expected, found = torch_scores(loaded, PAIRS), Scorer(ended).score_detailed(PAIRS).scores
    assert np.abs(expected - found).max() <= 1e-4
    assert np.abs(Scorer(begun).score_detailed(PAIRS).scores - found).max() > 0.01  # it has learnt


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_what_is_written_has_the_tokenizer_and_the_window_of_the_bundle(kind, trained, exported, answers, tmp_path):
    bundle = exported(kind, "fp32")
    short = shutil.copytree(bundle.path, tmp_path / "short")
    save_bundle(short, bundle.manifest.model_dump(exclude={"files"}) | {"max_length": 48})
    start = start_of(short)
    write_checkpoint(tmp_path / "out", short, start.shape, start.weights, start.tokenizer)
    again = export_checkpoint(tmp_path / "out", tmp_path / "again", calibration=answers)
    assert again.manifest.max_length == 48
    assert again.read("tokenizer.json") == bundle.read("tokenizer.json")
    ours, theirs = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "out", trained[kind]))
    assert ours.special_tokens_map == theirs.special_tokens_map
    texts = {"text": ["yes", "the river"], "text_pair": ["no", "where two rivers meet"], "padding": True}
    assert dict(ours(**texts)) == dict(theirs(**texts))
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.num_labels, config.pad_token_id, config.classifier_dropout) == (1, start.shape.pad_token_id, 0.3)


def test_fresh_weights_take_the_shape_of_a_bundle(exported):
    start = start_of(exported("bert", "int8").path, fresh=True)
    assert not start.is_scorer
    assert start.shape.num_attention_heads == 4


def another_activation(model):
    for node in model.graph.node:
        if node.op_type == "BiasGelu":
            node.op_type = "FastGelu"


def lone_norm(model):
    norm = next(node for node in reversed(model.graph.node) if node.op_type == "LayerNormalization")
    norm.attribute[1].f = 0.5


def something_else(model):
    score = onnx.helper.make_node("ReduceSum", ["input_ids"], ["score"], keepdims=0)
    return onnx.helper.make_model(onnx.helper.make_graph([score], "g", model.graph.input, model.graph.output))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_activation, "made by FastGelu, expected BiasGelu"),
        (lone_norm, "layer_norm_eps is 1e-12 here and 0.5 there"),
        (something_else, "'score' is made by ReduceSum, expected Gather"),
    ],
)
def test_a_graph_that_is_not_ours_is_refused(change, message, exported, tmp_path):
    other = changed(exported("bert", "fp32"), tmp_path / "other", change)
    with pytest.raises(InputError, match=rf"other/model.onnx is no graph that `cappy export` makes.*{message}"):
        start_of(other.path)


def test_a_damaged_bundle_is_no_start(exported, tmp_path):
    folder = shutil.copytree(exported("bert", "fp32").path, tmp_path / "bundle")
    raw = bytearray((folder / "model.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "model.onnx").write_bytes(raw)
    with pytest.raises(BundleDamaged, match=r"model\.onnx is damaged"):
        start_of(folder)


def test_a_folder_of_pairs_is_no_bundle(pairs):
    assert not is_bundle(pairs)
    with pytest.raises(InputError, match="is no checkpoint"):
        start_of(pairs)


def test_a_bundle_comes_from_a_hub(exported, tmp_path):
    bundle = exported("roberta", "int8")
    script = """
import json
from cappy_select.train.config import TrainConfig
from cappy_select.train.start import starting_point
config = TrainConfig(pairs="-", checkpoint="hf://org/scorer", buckets=(64,))
print(json.dumps(starting_point(config).facts(config)))
"""
    with serve_hub({"org/scorer": bundle.path}) as (address, _):
        there = environment(HF_ENDPOINT=address, HF_HOME=str(tmp_path / "hf"))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=there)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["checkpoint"], facts["commit"]) == ("hf://org/scorer", COMMIT)
    assert facts["bundle"]["digest"] == bundle.digest

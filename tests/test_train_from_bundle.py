"""A run that starts from a bundle: the weights in its model are the ones that were exported, and score like it."""

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
from tiny import WORDS, make_bert, make_mpnet, make_roberta
from tiny_encoders import make_xlm_roberta
from tokenizers import Tokenizer
from trainings import environment, looks_of

from cappy_select import InputError, Scorer
from cappy_select.bundle.bundle import EMBEDDED, Bundle, is_bundle, load_bundle
from cappy_select.bundle.writing import save_bundle
from cappy_select.core import BundleDamaged, BundleFormatError
from cappy_select.export import export_checkpoint
from cappy_select.export.checkpoint import load_checkpoint
from cappy_select.export.parameters import SHAPE, find_parameters, recorded
from cappy_select.export.parity import torch_scores
from cappy_select.train.bundled import read_bundle
from cappy_select.train.config import TrainConfig
from cappy_select.train.encoder import Encoder, EncoderConfig
from cappy_select.train.job import train
from cappy_select.train.start import Start, starting_point
from cappy_select.train.weights import read_checkpoint, write_checkpoint

MAKE = {"bert": make_bert, "roberta": make_roberta, "xlm-roberta": make_xlm_roberta, "mpnet": make_mpnet}
TOLERANCES = {"fp32": 1e-4, "fp16": 5e-3, "int8": 0.05}  # of scores
NOTED = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.3}
PAIRS = [(" ".join(WORDS[i : i + 9]), " ".join(WORDS[2 * i : 2 * i + 1 + i % 4])) for i in range(20)]


# RoBERTa and XLM-RoBERTa share their graph with BERT but for positions and types.
QUICK = [kind if kind in ("bert", "mpnet") else pytest.param(kind, marks=pytest.mark.slow) for kind in MAKE]


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


def changed(bundle: Bundle, folder: Path, **fields: object) -> Bundle:
    """A copy of a bundle whose manifest says something else."""
    shutil.copytree(bundle.path, folder)
    return save_bundle(folder, bundle.manifest.model_dump(exclude={"files"}) | fields)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow), "int8"])
@pytest.mark.parametrize("kind", QUICK)
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


def test_a_bundle_of_before_is_refused_and_scores_as_ever(exported, tmp_path):
    bundle = exported("roberta", "fp32")
    old = changed(bundle, tmp_path / "old", parameters={}, config={})
    with pytest.raises(
        InputError, match=r"old was made by an earlier version, .*export its checkpoint again, or start"
    ):
        start_of(old.path)
    assert (Scorer(old).score_detailed(PAIRS).scores == Scorer(bundle).score_detailed(PAIRS).scores).all()


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


@pytest.mark.parametrize("kind", QUICK)
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


def test_the_shape_that_is_recorded_is_all_that_training_reads():
    assert set(SHAPE) == set(EncoderConfig.model_fields)


QUERY = "bert.encoder.layer.1.attention.self.query.weight"
WRONG_RECORDS = {
    "no such tensor": ({"tensor": "nowhere"}, "'nowhere' is no tensor of model.onnx"),
    "no such scale": ({"scale": "\x1b[2J"}, r"'\\x1b\[2J' is no tensor of model.onnx"),
    "another's scale": (
        {"scale": "model.bert.pooler.dense.weight"},
        r"scale '.*pooler.dense.weight' has the shape \[32, 3",
    ),
    "not a third": ({"third": None}, r"holds the shape \[96, 32\] where \[32, 32\] fits"),
    "another shape": ({"tensor": "model.bert.pooler.dense.bias", "third": None}, r"the shape \[32\] where \[32, 32\]"),
    "of what has none": ({"tensor": "model.bert.pooler.dense.weight"}, r"of shape \[32, 32\] has no thirds"),
    "no numbers": ({"tensor": "ids"}, "'ids' holds no numbers of a kind that is exported"),
    "a file of its own": ({"tensor": "elsewhere"}, "'elsewhere' holds no numbers of a kind that is exported"),
    "too short": ({"tensor": "short"}, "reshape"),
}


@pytest.mark.parametrize("case", WRONG_RECORDS)
def test_a_record_that_is_not_of_the_file_is_refused(case, exported, tmp_path):
    change, message = WRONG_RECORDS[case]
    bundle = exported("bert", "fp32")
    shutil.copytree(bundle.path, tmp_path / "other")
    model = onnx.load(tmp_path / "other" / "model.onnx")
    floats, shape = onnx.TensorProto.FLOAT, (32, 96)
    model.graph.initializer.extend(
        [
            onnx.TensorProto(name="ids", data_type=onnx.TensorProto.INT64, dims=shape, raw_data=b"\0" * 24576),
            onnx.TensorProto(name="short", data_type=floats, dims=[2**40, 96], raw_data=b"\0" * 4),
            onnx.TensorProto(name="elsewhere", data_type=floats, dims=shape, data_location=onnx.TensorProto.EXTERNAL),
        ]
    )
    onnx.save_model(model, tmp_path / "model.onnx")
    (tmp_path / "model.onnx").replace(tmp_path / "other" / "model.onnx")
    fields = bundle.manifest.model_dump(exclude={"files"})
    right = fields["parameters"][QUERY]
    assert right.keys() == {"tensor", "transposed", "third"}  # the attention is fused
    save_bundle(tmp_path / "other", fields | {"parameters": fields["parameters"] | {QUERY: right | change}})
    with pytest.raises(InputError, match=rf"other/manifest.json: {QUERY}: .*{message}") as caught:
        start_of(tmp_path / "other")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


MALFORMED = {
    "nowhere": ({"transposed": True}, "tensor: Field required"),
    "a fourth third": ({"tensor": "a", "third": 3}, r"third: Input should be 0, 1 or 2, got 3"),
    "a long name": ({"tensor": "a" * 501}, "tensor: String should have at most 500 characters"),
    "what no export writes": ({"tensor": "a", "file": "/etc/passwd"}, "file: Extra inputs are not permitted"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_record_of_another_form_is_no_manifest(case, exported, tmp_path):
    record, message = MALFORMED[case]
    folder = shutil.copytree(exported("bert", "fp32").path, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parameters"][QUERY] = record
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleFormatError, match=rf"manifest.json is malformed: parameters\.{QUERY}.*{message}"):
        start_of(folder)


def test_a_manifest_of_parameters_without_end_is_malformed(exported, tmp_path):
    folder = shutil.copytree(exported("bert", "fp32").path, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parameters"] = {str(number): {"tensor": "a"} for number in range(10_001)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleFormatError, match="parameters: Dictionary should have at most 10000 items"):
        start_of(folder)


WRONG_SHAPES = {
    "of what is not trained": ({"model_type": "distilbert"}, "model_type: Input should be 'bert', .*got 'distilbert'"),
    "of no activation of ours": ({"hidden_act": "relu"}, "hidden_act: Input should be 'gelu', got 'relu'"),
    "without end": ({"num_hidden_layers": 10**12}, "weights are more than the .* bytes of model.onnx can hold"),
    "of more words": ({"vocab_size": 1000}, r"word_embeddings.weight: .*\] where \[1000, 32\] fits"),
}


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_a_shape_that_is_not_the_files_is_refused(case, exported, tmp_path):
    change, message = WRONG_SHAPES[case]
    bundle = exported("bert", "fp32")
    other = changed(bundle, tmp_path / "other", config=bundle.manifest.config | change)
    with pytest.raises(InputError, match=rf"other/manifest.json: .*{message}"):
        start_of(other.path)


def test_a_parameter_that_is_not_recorded_is_named(exported, tmp_path):
    bundle = exported("bert", "fp32")
    records = {name: record for name, record in bundle.manifest.parameters.items() if name != QUERY}
    other = changed(bundle, tmp_path / "other", parameters=records)
    with pytest.raises(InputError, match=rf"other does not hold {QUERY} as it was: start from the checkpoint"):
        start_of(other.path)


def test_only_what_the_graph_holds_is_recorded():
    model = torch.nn.Linear(3, 2)
    held = {"weight": model.weight.detach().numpy().T, "bias": model.bias.detach().numpy()}
    before, after = (onnx.GraphProto(), onnx.GraphProto())
    before.initializer.extend(onnx.numpy_helper.from_array(value, f"a {name}") for name, value in held.items())
    found = find_parameters(model, before)
    assert {name: record.model_dump() for name, record in found.items()} == {
        "weight": {"tensor": "a weight", "transposed": True}, "bias": {"tensor": "a bias"}
    }  # fmt: skip
    after.initializer.extend(onnx.TensorProto(name=f"a weight_{part}") for part in ("int8", "scale"))
    assert {name: record.model_dump() for name, record in recorded(found, after).items()} == {
        "weight": {"tensor": "a weight_int8", "scale": "a weight_scale", "transposed": True}
    }
    assert find_parameters(model, onnx.GraphProto()) == {}


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

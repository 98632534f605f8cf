"""Every architecture that can be exported: torch's scores, the same bits in every batch, the right window."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import transformers
from test_scorer import assert_bits_depend_on_the_pair_alone
from tiny import WORDS, awkward_pairs, wordpiece_vocabulary
from tiny_encoders import MAKERS, make_deberta, make_deberta_v2, make_modernbert, make_roberta

from cappy_select import Scorer
from cappy_select.core import ExportError
from cappy_select.export import attention, export_checkpoint
from cappy_select.export.checkpoint import load_checkpoint
from cappy_select.export.parity import torch_scores
from cappy_select.scorer.encoding import PairEncoder

PAIRS = [(f"{first[:900]}", second[:900]) for first, second in dict.fromkeys(awkward_pairs(60, seed=5))]
TYPED = ("bert", "electra")


QUICK = ("mpnet", "deberta-v2", "modernbert")  # one of each kind of attention; CI has the others among the slow tests


@pytest.fixture(
    scope="module",
    params=[kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in MAKERS],
)
def checkpoint(request, tmp_path_factory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp("checkpoints") / request.param)


@pytest.fixture(scope="module")
def exact(checkpoint, tmp_path_factory):
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("bundles") / checkpoint.name)


@pytest.fixture(scope="module")
def rounded(checkpoint, tmp_path_factory):
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("bundles") / checkpoint.name, precision="int8")


def kinds_of(bundle) -> list[str]:
    return [node.op_type for node in onnx.load(bundle.path / "model.onnx").graph.node]


def test_scores_equal_those_of_torch_also_where_the_window_is_full(checkpoint, exact):
    loaded = load_checkpoint(checkpoint)
    pairs = [*PAIRS[:30], ("yes " * 600, "no " * 600), (" ".join(WORDS * 9), "river " * 300)]
    expected = torch_scores(loaded, pairs)
    scored = Scorer(exact).score_detailed(pairs)
    assert (scored.cut > 0).sum() >= 2
    assert expected.std() > 0.005  # not one constant
    assert np.abs(expected - scored.scores).max() <= 1e-4


def test_int8_keeps_the_scores_and_quantises_every_product_of_the_encoder(checkpoint, exact, rounded):
    ours, theirs = (Scorer(bundle).score_detailed(PAIRS).scores for bundle in (rounded, exact))
    assert 0 < np.abs(ours - theirs).max() < 0.15 * max(1, np.abs(theirs).max())
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99
    weights = {tensor.name for tensor in onnx.load(rounded.path / "model.onnx").graph.initializer}
    left = [
        node
        for node in onnx.load(rounded.path / "model.onnx").graph.node
        if node.op_type == "MatMul" and weights & set(node.input)
    ]
    assert left == []
    layers = int(rounded.manifest.architecture.split()[1].split("x")[0])
    assert kinds_of(rounded).count("MatMulIntegerToFloat") >= 4 * layers


@pytest.mark.slow  # fp16 of BERT and RoBERTa is in test_export.py
def test_fp16_keeps_the_scores(checkpoint, exact, tmp_path):
    """On a CPU that does not compute in it; onnxruntime crashed while it loaded DeBERTa."""
    half = export_checkpoint(checkpoint, tmp_path / "half", precision="fp16")
    ours, theirs = (Scorer(bundle).score_detailed(PAIRS[:20]).scores for bundle in (half, exact))
    assert 0 < np.abs(ours - theirs).max() < 0.01


def test_a_score_is_the_same_bits_alone_in_any_batch_and_reversed(exact, rounded):
    for bundle in (exact, rounded):
        assert_bits_depend_on_the_pair_alone(Scorer(bundle, cache=False), PAIRS)


def test_attention_is_one_node_in_every_layer_and_the_manifest_says_so(checkpoint, exact, rounded):
    layers = int(exact.manifest.architecture.split()[1].split("x")[0])
    for bundle in (exact, rounded):
        kinds = kinds_of(bundle)
        assert kinds.count("Attention") + kinds.count("MultiHeadAttention") == layers
        assert "Softmax" not in kinds
        assert bundle.manifest.provenance["attention"] == f"one node in {layers} of {layers} layers"


def test_the_window_is_the_tables_and_type_ids_are_fed_where_there_are_types(checkpoint, exact):
    assert exact.manifest.max_length == 512
    inputs = {each.name for each in onnx.load(exact.path / "model.onnx").graph.input}
    assert inputs == {"input_ids", "attention_mask"} | ({"token_type_ids"} if checkpoint.name in TYPED else set())


def test_texts_are_encoded_as_by_the_checkpoints_own_tokenizer(checkpoint, exact):
    reference = transformers.AutoTokenizer.from_pretrained(checkpoint, split_special_tokens=True)
    encoder = PairEncoder.of(exact)
    for pair in awkward_pairs(60):
        expected = reference(
            [pair[0]], [pair[1]], truncation="longest_first", max_length=512, return_token_type_ids=True
        )
        ids, types = encoder.join(encoder.pair(*encoder.tokens(pair)))
        assert ids.tolist() == expected["input_ids"][0]
        if checkpoint.name in TYPED:
            assert types.tolist() == expected["token_type_ids"][0]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (make_deberta, {"pos_att_type": ["c2p"]}),
        (make_deberta, {"relative_attention": False, "position_biased_input": True, "pos_att_type": []}),
        (make_deberta, {"type_vocab_size": 2, "max_relative_positions": 16}),
        (make_deberta_v2, {"share_att_key": False, "position_buckets": 16, "max_relative_positions": 64}),
        (make_deberta_v2, {"share_att_key": False, "pos_att_type": ["p2c"], "position_buckets": -1}),
        (make_deberta_v2, {"conv_kernel_size": 3, "conv_act": "gelu"}),
        (make_modernbert, {"classifier_pooling": "cls", "attention_bias": True, "norm_bias": True}),
        (make_modernbert, {"local_attention": 512, "global_attn_every_n_layers": 1}),
    ],
)
def test_what_a_configuration_can_choose_is_kept(make, options, tmp_path):
    folder = make(tmp_path / "checkpoint", **options)
    bundle = export_checkpoint(folder, tmp_path / "bundle")
    expected = torch_scores(load_checkpoint(folder), PAIRS[:20])
    assert np.abs(expected - Scorer(bundle).score_detailed(PAIRS[:20]).scores).max() <= 1e-4


def test_the_distances_are_looked_up_so_attention_as_torch_has_it_gives_the_same_scores(tmp_path, monkeypatch):
    """And what does not fuse is exported all the same, and says so."""
    folder = MAKERS["mpnet"](tmp_path / "checkpoint")
    fused = export_checkpoint(folder, tmp_path / "fused")
    monkeypatch.delitem(attention._WRITTEN, "mpnet")
    stages = []
    plain = export_checkpoint(folder, tmp_path / "plain", on_stage=stages.append)
    assert [stage for stage in stages if "one node in 0 of 2 layers" in stage and "more time and memory" in stage]
    assert plain.manifest.provenance["attention"] == "one node in 0 of 2 layers"
    assert kinds_of(plain).count("Softmax") == 2
    ours, theirs = (Scorer(bundle).score_detailed(PAIRS).scores for bundle in (fused, plain))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("kind", attention._WRITTEN)
def test_a_model_has_its_own_attention_again_when_it_is_written(kind, tmp_path):
    loaded = load_checkpoint(MAKERS[kind](tmp_path / kind))
    before = torch_scores(loaded, PAIRS[:3])
    with attention.one_node(loaded.model, 512):
        assert any("forward" in vars(module) for module in loaded.model.modules())
    assert not any("forward" in vars(module) for module in loaded.model.modules())
    assert torch_scores(loaded, PAIRS[:3]).tolist() == before.tolist()


def test_modernberts_window_is_8192_tokens_and_roberta_like_ones_are_their_tables(tmp_path):
    long = export_checkpoint(make_modernbert(tmp_path / "modernbert", model_max_length=10**30), tmp_path / "bundle")
    assert long.manifest.max_length == 8192
    pair = ("yes " * 700, "which river " * 400)
    expected = torch_scores(load_checkpoint(tmp_path / "modernbert"), [pair])
    scored = Scorer(long).score_detailed([pair])
    assert scored.cut.tolist() == [0]
    assert np.abs(expected - scored.scores).max() <= 1e-4
    for kind in ("xlm-roberta", "mpnet"):
        folder = MAKERS[kind](tmp_path / kind, max_position_embeddings=130)
        assert load_checkpoint(folder).max_length == 128


ACTIVATIONS = {
    "sigmoid, by sentence-transformers": (
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "4.1.0"}},
        r"go through 'torch.nn.modules.activation.Sigmoid'.*raw.*take activation_fn out of config.json",
    ),
    "sigmoid, by an earlier one": (
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
        r"Sigmoid.*take sbert_ce_default_activation_function out",
    ),
    "tanh": ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, "Tanh"),
    "several labels at once": ({"problem_type": "multi_label_classification"}, "problem_type 'multi_label.*sigmoid"),
    "classes": ({"problem_type": "single_label_classification"}, "softmax.*regression"),
    "two labels": ({"id2label": {"0": "bad", "1": "good"}}, "2 labels: a scorer has one.*train it anew"),
    "code of its own": ({"model_type": "new", "auto_map": {"AutoConfig": "x.Y"}}, r"type 'new'.*auto_map.*never run"),
}


@pytest.mark.parametrize("what", ACTIVATIONS)
def test_scores_that_are_not_the_raw_output_are_refused_in_one_clear_error(what, checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    changes, message = ACTIVATIONS[what]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ExportError, match=message):
        export_checkpoint(folder, tmp_path / "out")


def test_the_file_beside_the_configuration_is_read_too_and_the_identity_is_fine(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    beside = folder / "config_sentence_transformers.json"
    config = json.loads((folder / "config.json").read_text())
    config |= {"problem_type": "regression", "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.0.0"}
    (folder / "config.json").write_text(json.dumps(config))
    beside.write_text(json.dumps({"activation_fn": "torch.nn.modules.linear.Identity"}))
    load_checkpoint(folder)
    beside.write_text(json.dumps({"activation_fn": "torch.nn.modules.activation.Sigmoid"}))
    with pytest.raises(ExportError, match=r"config_sentence_transformers.json says .*Sigmoid"):
        load_checkpoint(folder)
    beside.write_text("{")
    with pytest.raises(ExportError, match="is not JSON"):
        load_checkpoint(folder)


def test_a_tokenizer_without_tokenizer_json_is_made_of_its_vocabulary(checkpoints, tmp_path):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "bert")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in wordpiece_vocabulary(specials)))
    roberta = make_roberta(tmp_path / "roberta")
    model = json.loads((roberta / "tokenizer.json").read_text())["model"]
    (roberta / "tokenizer.json").unlink()
    (roberta / "vocab.json").write_text(json.dumps(model["vocab"]))
    (roberta / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"]))
    for kind in ("bert", "roberta"):
        ours = load_checkpoint(tmp_path / kind)
        theirs = load_checkpoint(checkpoints[kind])
        for first, second in PAIRS:
            assert ours.tokenizer([first], [second])["input_ids"] == theirs.tokenizer([first], [second])["input_ids"]


@pytest.mark.parametrize("name", ["spm.model", "sentencepiece.bpe.model"])
def test_a_sentencepiece_model_alone_is_an_error_that_says_what_it_takes(name, tmp_path):
    folder = MAKERS["deberta-v2"](tmp_path / "checkpoint")
    (folder / "tokenizer.json").rename(folder / name)
    with pytest.raises(ExportError, match=rf"SentencePiece model only \({name}\).*pip install sentencepiece protobuf"):
        load_checkpoint(folder)

"""Our encoder against Hugging Face's in torch: the same scores, the same gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file
from tiny import make_bert, make_mpnet, make_roberta

from cappy_select.core.errors import InputError
from cappy_select.train.attention import _attention, _forward
from cappy_select.train.encoder import Encoder, EncoderConfig, _by_distance
from cappy_select.train.matmul import matmul
from cappy_select.train.weights import LAYERED, checkpoint_name, read_checkpoint, write_checkpoint


def model_of(folder, **options) -> Encoder:
    config, parameters = read_checkpoint(folder)
    model = Encoder(config, jax.random.key(0), **options)
    for name, value in parameters.items():
        model.weights[name][...] = jnp.asarray(value)
    return model


def batch_of(config: EncoderConfig, rows=6, tokens=40, seed=0):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, tokens + 1, rows).astype(np.int32)
    lengths[0] = tokens
    ids = draw.integers(5, config.vocab_size, (rows, tokens)).astype(np.int32)
    types = draw.integers(0, max(config.type_vocab_size, 1), (rows, tokens)).astype(np.int32)
    padding = np.arange(tokens) >= lengths[:, None]
    ids[padding], types[padding] = config.pad_token_id, 0
    return ids, types, lengths


def torch_scores(model, ids, types, lengths):
    mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
    inputs = {"input_ids": torch.tensor(ids, dtype=torch.long), "attention_mask": mask.long()}
    if model.config.model_type == "bert":
        inputs["token_type_ids"] = torch.tensor(types, dtype=torch.long)
    return model(**inputs).logits[:, 0]


def shape(hidden_size, layers, heads):
    # Of the spread that these models start with: with the 0.1 of the tiny ones, so wide a model's softmax is saturated,
    # and torch's own fp32 gradients are 2e-3 off those it has in fp64.
    sizes = {"hidden_size": hidden_size, "intermediate_size": 4 * hidden_size, "initializer_range": 0.02}
    return sizes | {"num_hidden_layers": layers, "num_attention_heads": heads}


SMALL = {
    "bert": ("bert", {}),
    "roberta": ("roberta", {}),
    "xlm-roberta": ("xlm-roberta", {}),
    "mpnet": ("mpnet", {}),
    "deep": ("bert", shape(32, 7, 4)),  # layers not written out
    "deep mpnet": ("mpnet", shape(32, 7, 4)),
}
LARGE = {
    "minilm": ("bert", shape(384, 6, 12)),
    "base": ("roberta", shape(768, 12, 12)),
    "large": ("roberta", shape(1024, 24, 16)),
    "mpnet-base": ("mpnet", shape(768, 12, 12)),
}


def make_xlm_roberta(folder, **sizes):
    """The same weights as a RoBERTa's, under the class that is called so."""
    make_roberta(folder, **sizes)
    theirs = transformers.RobertaForSequenceClassification.from_pretrained(folder)
    known = {**theirs.config.to_dict(), "model_type": "xlm-roberta", "architectures": None}
    ours = transformers.XLMRobertaForSequenceClassification(transformers.XLMRobertaConfig.from_dict(known))
    ours.load_state_dict(theirs.state_dict())
    ours.save_pretrained(folder)
    return folder


MAKE = {"bert": make_bert, "roberta": make_roberta, "xlm-roberta": make_xlm_roberta, "mpnet": make_mpnet}


@pytest.fixture(
    scope="module",
    params=[*SMALL, *(pytest.param(n, marks=[pytest.mark.slow, pytest.mark.long]) for n in LARGE)],
)
def checkpoint(request, tmp_path_factory):
    kind, sizes = (SMALL | LARGE)[request.param]
    return MAKE[kind](tmp_path_factory.mktemp("checkpoint") / request.param, **sizes)


def torch_model(folder):
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()


def test_scores_are_torchs(checkpoint):
    model = model_of(checkpoint)
    ids, types, lengths = batch_of(model.config)
    with torch.no_grad():
        expected = torch_scores(torch_model(checkpoint), ids, types, lengths).numpy()
    assert np.abs(np.asarray(model(ids, types, lengths)) - expected).max() <= 1e-4


@pytest.mark.parametrize("remat", [False, True])
def test_gradients_are_torchs(checkpoint, remat):
    ours, theirs = model_of(checkpoint, remat=remat), torch_model(checkpoint)
    ids, types, lengths = batch_of(ours.config)
    goals = np.linspace(0, 1, len(ids)).astype(np.float32)
    ((torch_scores(theirs, ids, types, lengths) - torch.tensor(goals)) ** 2).mean().backward()
    gradients = nnx.grad(lambda model: jnp.mean((model(ids, types, lengths) - goals) ** 2))(ours)
    theirs_by_name = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    found = {name: value[...] for name, value in nnx.to_pure_dict(gradients)["weights"].items()}
    whole = np.sqrt(sum(float(np.square(gradient).sum()) for gradient in theirs_by_name.values()))
    checked = 0
    for name, value in found.items():
        if name == "key_bias":  # zero by mathematics: a softmax does not see what is the same for all keys
            continue
        stacked = name.rpartition("_")[0] in LAYERED
        for layer, part in enumerate(np.asarray(value)) if stacked else [(None, np.asarray(value))]:
            expected = theirs_by_name.get(checkpoint_name(name, ours.config.model_type, layer))
            mine = part.T if name.endswith("kernel") else part
            if name == "position":  # torch never adds to the row of the padding
                expected = expected.copy()
                if ours.config.first_position:
                    mine = mine.copy()
                    mine[ours.config.pad_token_id] = 0
            if name == "word":
                mine = mine.copy()
                mine[ours.config.pad_token_id] = 0
            difference = np.linalg.norm(mine - expected)
            assert difference / max(np.linalg.norm(expected), 1e-6 * whole) <= 1e-3, (name, layer)
            checked += 1
    assert checked == len(theirs_by_name) - ours.config.num_hidden_layers


@pytest.mark.parametrize("asking", [7, 1])
@pytest.mark.parametrize("dropout", [False, True])
def test_the_gradient_of_attention_with_a_bias_is_the_one_that_jax_derives(asking, dropout):
    draw = np.random.default_rng(0)
    sizes = ((3, 2, asking, 4), (3, 2, 7, 4), (3, 2, 7, 4), (2, asking, 7))
    of = tuple(jnp.asarray(draw.normal(size=size), jnp.float32) for size in sizes)
    real = jnp.arange(7) < jnp.array([7, 4, 1])[:, None]
    seed = jnp.uint32(5) if dropout else None
    weights = jnp.asarray(draw.normal(size=sizes[0]), jnp.float32)

    def gradients(function):
        def summed(query, key, value, bias):
            return (function(query, key, value, real, seed, bias, 0.3) * weights).sum()

        return jax.jit(jax.grad(summed, argnums=(0, 1, 2, 3)))(*of)

    derived = gradients(lambda *given: _forward(*given)[0])
    for mine, theirs in zip(gradients(_attention), derived, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert np.abs(derived[3]).max() > 0.1


def test_the_bias_of_a_distance_is_in_the_bucket_that_transformers_takes():
    tokens = 600
    distance = torch.arange(tokens)[None] - torch.arange(tokens)[:, None]
    expected = transformers.models.mpnet.modeling_mpnet.MPNetEncoder.relative_position_bucket(distance)
    found = _by_distance(jnp.arange(32, dtype=jnp.float32)[:, None], tokens)
    np.testing.assert_array_equal(found[0], expected.numpy())


@pytest.mark.parametrize("setting", [{"pad_token_id": 0}, {"relative_attention_num_buckets": 64}], ids=str)
def test_an_mpnet_that_transformers_reads_otherwise_is_refused(setting):
    sizes = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    sizes |= {"intermediate_size": 4, "max_position_embeddings": 9, "pad_token_id": 1, "model_type": "mpnet"}
    EncoderConfig(**sizes)
    with pytest.raises(ValueError, match=next(iter(setting))):
        EncoderConfig(**sizes | setting)


def test_products_of_bf16_are_those_of_rounded_operands_summed_in_fp32():
    draw = np.random.default_rng(0)
    states, kernel, gradient = (
        jnp.asarray(draw.normal(size=size), jnp.float32) for size in ((3, 5, 64), (64, 32), (3, 5, 32))
    )
    rounded = [np.asarray(each.astype(jnp.bfloat16).astype(jnp.float32)) for each in (states, kernel, gradient)]
    found, back = jax.vjp(lambda *of: matmul(*of, jnp.bfloat16), states, kernel)
    expected = (
        rounded[0] @ rounded[1],
        rounded[2] @ rounded[1].T,
        rounded[0].reshape(-1, 64).T @ rounded[2].reshape(-1, 32),
    )
    for mine, theirs in zip((found, *back(gradient)), expected, strict=True):
        assert mine.dtype == jnp.float32
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(found) - np.asarray(states) @ np.asarray(kernel)).max() > 1e-3


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
def test_bf16_has_nearly_the_scores_and_gradients_of_fp32(kind, tmp_path):
    folder = MAKE[kind](tmp_path / kind, initializer_range=0.02)

    def of(compute):
        model = model_of(folder, compute=compute)
        ids, types, lengths = batch_of(model.config)
        gradients = nnx.grad(lambda model: jnp.sum((model(ids, types, lengths) - 1) ** 2))(model)
        flat = jax.tree.leaves(nnx.to_pure_dict(gradients)["weights"])
        return np.asarray(model(ids, types, lengths)), np.concatenate([np.ravel(part) for part in flat])

    (exact, its_gradient), (rounded, of_rounded) = of(jnp.float32), of(jnp.bfloat16)
    assert 0 < np.abs(exact - rounded).max() < 5e-3
    assert 0 < np.linalg.norm(its_gradient - of_rounded) < 0.02 * np.linalg.norm(its_gradient)


def test_padding_changes_no_score(checkpoint):
    model = model_of(checkpoint)
    ids, types, lengths = batch_of(model.config, tokens=24)
    wider = [
        np.pad(each, ((0, 0), (0, 40)), constant_values=value)
        for each, value in ((ids, model.config.pad_token_id), (types, 0))
    ]
    assert np.allclose(model(ids, types, lengths), model(*wider, lengths), atol=1e-5)


def test_dropout_is_a_function_of_its_key(checkpoint):
    model = model_of(checkpoint)
    batch = batch_of(model.config)
    first, again, other = (np.asarray(model(*batch, dropout=jax.random.key(k))) for k in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert (first != np.asarray(model(*batch))).any()


def test_a_checkpoint_that_is_written_is_a_plain_one(checkpoint, tmp_path):
    config, parameters = read_checkpoint(checkpoint)
    write_checkpoint(tmp_path / "out", checkpoint, config, parameters, (checkpoint / "tokenizer.json").read_bytes())
    again_config, again = read_checkpoint(tmp_path / "out")
    assert again_config == config
    assert all((again[name] == value).all() for name, value in parameters.items())
    before, after = torch_model(checkpoint).state_dict(), torch_model(tmp_path / "out").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    theirs, mine = load_file(checkpoint / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert theirs.keys() == mine.keys()
    assert all((theirs[name] == mine[name]).all() for name in theirs)
    transformers.AutoTokenizer.from_pretrained(tmp_path / "out")


def test_weights_of_any_safe_kind_are_read(checkpoint, tmp_path):
    from flax.serialization import msgpack_serialize

    _, parameters = read_checkpoint(checkpoint)
    tensors = load_file(checkpoint / "model.safetensors")
    nested: dict = {}
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        node = nested
        for part in path:
            node = node.setdefault(part, {})
        if last == "weight":
            last = (
                "embedding"
                if ("embeddings." in name and "LayerNorm" not in name) or "relative" in name
                else ("scale" if "LayerNorm" in name else "kernel")
            )
        node[last] = tensor.T if last == "kernel" else tensor
    for kind in ("bin", "msgpack"):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
        if kind == "bin":
            torch.save({name: torch.tensor(t) for name, t in tensors.items()}, folder / "pytorch_model.bin")
        else:
            (folder / "flax_model.msgpack").write_bytes(msgpack_serialize(nested))
        _, found = read_checkpoint(folder)
        assert found.keys() == parameters.keys()
        assert all((found[name] == value).all() for name, value in parameters.items()), kind


def test_what_is_no_checkpoint_is_named(tmp_path, checkpoint):
    with pytest.raises(InputError, match="no checkpoint"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="model_type"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    with pytest.raises(InputError, match="no weights"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="can't be read"):
        read_checkpoint(tmp_path)

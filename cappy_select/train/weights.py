"""Weights by the names that Hugging Face gives them: read from a checkpoint, written to one.

What is written is a plain checkpoint: `AutoModelForSequenceClassification` loads it, and `cappy export` makes a bundle
of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from cappy_select.bundle.bundle import is_bundle, load_bundle
from cappy_select.bundle.hub import TOKENIZER_FILES
from cappy_select.core.errors import InputError, validation_message
from cappy_select.core.json_text import loads
from cappy_select.export.weight_files import Kind, check_named, weight_files
from cappy_select.train.encoder import Architecture, EncoderConfig, parameter_shapes

Array = npt.NDArray[np.float32]

_EMBEDDINGS = {
    "word": "embeddings.word_embeddings.weight",
    "position": "embeddings.position_embeddings.weight",
    "type": "embeddings.token_type_embeddings.weight",
    "distance_bias": "encoder.relative_attention_bias.weight",
    "embedding_norm_scale": "embeddings.LayerNorm.weight",
    "embedding_norm_bias": "embeddings.LayerNorm.bias",
}
_LAYERED = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
}
LAYERED = frozenset(_LAYERED)
_OF_MPNET = {
    "query": "attention.attn.q",
    "key": "attention.attn.k",
    "value": "attention.attn.v",
    "attention": "attention.attn.o",
    "attention_norm": "attention.LayerNorm",
}
_HEAD = {"pool": "classifier.dense", "score": "classifier.out_proj"}
_OF_BERT = {"pool": "bert.pooler.dense", "score": "classifier"}
_CLASSES: dict[Architecture, str] = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "mpnet": "MPNetForSequenceClassification",
}

_BRACKETS = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"
}  # fmt: skip
_ANGLES = {
    "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
    "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip
_SPECIAL_TOKENS: dict[Architecture, tuple[dict[str, str], ...]] = {
    "bert": (_BRACKETS,),
    "roberta": (_ANGLES,),
    "xlm-roberta": (_ANGLES,),
    "mpnet": (_ANGLES, _BRACKETS),  # the unknown word alone is spelt BERT's way
}


def checkpoint_name(parameter: str, architecture: Architecture, layer: int | None = None) -> str:
    """A parameter's name in a checkpoint; of one layer of a stacked one."""
    prefix = "roberta" if architecture == "xlm-roberta" else architecture
    if parameter in _EMBEDDINGS:
        return f"{prefix}.{_EMBEDDINGS[parameter]}"
    stem, _, part = parameter.rpartition("_")
    suffix = "bias" if part == "bias" else "weight"
    if layer is not None:
        names = _LAYERED | _OF_MPNET if architecture == "mpnet" else _LAYERED
        return f"{prefix}.encoder.layer.{layer}.{names[stem]}.{suffix}"
    return f"{(_OF_BERT if architecture == 'bert' else _HEAD)[stem]}.{suffix}"


def read_checkpoint(folder: str | Path) -> tuple[EncoderConfig, dict[str, Array]]:
    """The shape and the parameters in a checkpoint folder; `weight_files` says in which of its files.

    A missing head (a bare encoder, or one trained for something else) is left out of what is returned.
    Raises InputError when the folder is no checkpoint of a known architecture, or a tensor is missing or misshapen.
    """
    folder = Path(folder)
    config = read_config(folder)
    tensors = _tensors(folder)
    parameters: dict[str, Array] = {}
    for name, shape in parameter_shapes(config).items():
        stacked = name.rpartition("_")[0] in LAYERED
        layers: list[int | None] = list(range(config.num_hidden_layers)) if stacked else [None]
        parts = [tensors.get(checkpoint_name(name, config.model_type, layer)) for layer in layers]
        if any(part is None for part in parts):
            if name.startswith(("pool_", "score_")):
                continue
            missing = next(layer for layer, part in zip(layers, parts, strict=True) if part is None)
            raise InputError(f"{folder} lacks {checkpoint_name(name, config.model_type, missing)}")
        found = [np.asarray(part, np.float32) for part in parts]
        if name.endswith("kernel"):  # torch keeps [out, in]
            found = [part.T for part in found]
        value = np.stack(found) if stacked else found[0]
        if value.shape != shape:
            if name.startswith("score_"):
                continue  # a head of another number of labels
            raise InputError(
                f"{folder}: {checkpoint_name(name, config.model_type, 0 if stacked else None)} has the shape "
                f"{value.shape[stacked:]}, config.json asks for {shape[stacked:]}"
            )
        parameters[name] = value
    return config, parameters


def read_config(folder: Path) -> EncoderConfig:
    """`config.json` as a shape. Raises InputError."""
    path = folder / "config.json"
    try:
        return EncoderConfig.model_validate(loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{folder} is no checkpoint: {error}") from error
    except ValidationError as error:
        raise InputError(f"{path}: {validation_message(error)}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def write_checkpoint(
    folder: Path, like: Path, config: EncoderConfig, parameters: Mapping[str, Any], tokenizer: bytes
) -> None:
    """A Hugging Face checkpoint: `model.safetensors`, `config.json`, and the tokenizer's files, those of `like`.

    A bundle has neither configuration nor tokenizer files; what it is like then follows from the shape.
    """
    from safetensors.numpy import save_file

    tensors: dict[str, Array] = {}
    for name in parameter_shapes(config):
        value = np.asarray(parameters[name], np.float32)
        if name.rpartition("_")[0] in LAYERED:
            for layer, part in enumerate(value):
                tensors[checkpoint_name(name, config.model_type, layer)] = _as_torch(name, part)
        else:
            tensors[checkpoint_name(name, config.model_type)] = _as_torch(name, value)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {} if is_bundle(like) else loads((like / "config.json").read_text(encoding="utf-8"))
    labels = {"num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    kinds = {"architectures": [_CLASSES[config.model_type]], "problem_type": "regression", "dtype": "float32"}
    of_others = {"type_vocab_size"} if config.relative else {"relative_attention_num_buckets"}
    kept |= config.model_dump(exclude=of_others) | labels | kinds
    kept.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    if is_bundle(like):
        settings = _tokenizer_config(config.model_type, tokenizer, load_bundle(like).manifest.max_length)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    else:
        for name in TOKENIZER_FILES:
            if (like / name).is_file():
                shutil.copyfile(like / name, folder / name)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _tokenizer_config(architecture: Architecture, tokenizer: bytes, max_length: int) -> dict[str, Any]:
    """What transformers needs to know of a `tokenizer.json`, whose pipeline this class takes as it is."""
    from tokenizers import Tokenizer

    known = Tokenizer.from_buffer(tokenizer).token_to_id
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", *["token_type_ids"] * (architecture == "bert"), "attention_mask"],
        **{
            name: token
            for tokens in _SPECIAL_TOKENS[architecture]
            for name, token in tokens.items()
            if known(token) is not None
        },
    }


def _as_torch(name: str, value: Array) -> Array:
    return np.ascontiguousarray(value.T if name.endswith("kernel") else value)


# ----------------------------------------------------------------------------------------------- kinds of files


def _tensors(folder: Path) -> Mapping[str, Any]:
    readers: dict[Kind, Callable[[Path], dict[str, Any]]] = {
        "safetensors": _safetensors,
        "bin": _pickled,
        "msgpack": _msgpack,
    }
    chosen = weight_files(folder)
    tensors: dict[str, Any] = {}
    for file in chosen.files:
        found = readers[chosen.kind](file)
        if chosen.named is not None and chosen.kind == "bin":  # Flax's index separates names in another way
            check_named(file, found, chosen.named[file.name])
        tensors |= found
    return _named(tensors)


def _named(tensors: dict[str, Any]) -> dict[str, Any]:
    """Bare encoders (sentence-transformers') have no prefix; older files call norms gamma and beta."""
    renamed = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): tensor
        for name, tensor in tensors.items()
    }
    bare = {
        f"{prefix}.{name}": tensor
        for name, tensor in renamed.items()
        if name.startswith(("embeddings.", "encoder.", "pooler."))
        for prefix in ("bert", "roberta", "mpnet")
    }
    return bare | renamed


def _safetensors(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} can't be read: {error}") from error


def _pickled(file: Path) -> dict[str, Any]:
    import torch

    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{file} can't be read as weights: {error}") from error
    if not isinstance(loaded, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in loaded.values()):
        raise InputError(f"{file} must hold weights by name, as torch.save(model.state_dict()) writes them")
    return {name: tensor.float().numpy() for name, tensor in loaded.items()}


def _msgpack(file: Path) -> dict[str, Any]:
    """A checkpoint of transformers 4's Flax classes: nested names, kernels as ours, embeddings as `embedding`."""
    from flax.serialization import msgpack_restore

    try:
        tree = msgpack_restore(file.read_bytes())
    except Exception as error:
        raise InputError(f"{file} can't be read as Flax weights: {error}") from error

    if not isinstance(tree, Mapping):
        raise InputError(f"{file} must hold nested weights by name, it holds {type(tree).__name__}")

    def walk(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in node.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{name}.")
            elif name == "kernel":
                yield f"{prefix}weight", np.asarray(value).T
            else:
                yield f"{prefix}{ {'embedding': 'weight', 'scale': 'weight'}.get(name, name) }", value

    return dict(walk(tree, ""))

"""Reading a Hugging Face checkpoint: everything that can be wrong with one is found here, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from cappy_select.bundle import hub
from cappy_select.core.errors import BundleNotFound, ExportError, InputError
from cappy_select.core.json_text import loads
from cappy_select.export.weight_files import Kind, WeightFiles, weight_files, weight_patterns
from cappy_select.scorer.tokenizer_rules import checked_tokenizer

ARCHITECTURES = (
    "roberta", "xlm-roberta", "bert", "mpnet", "distilbert", "electra", "deberta", "deberta-v2", "modernbert"
)  # fmt: skip
_KINDS: tuple[Kind, ...] = ("safetensors", "bin")


@dataclass(frozen=True)
class Checkpoint:
    """A scorer as torch has it, in fp32 and evaluation mode, with what its manifest says of it."""

    name: str
    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerFast
    architecture: str
    max_length: int
    provenance: dict[str, Any]


def load_checkpoint(source: str | Path, revision: str | None = None) -> Checkpoint:
    """Load a checkpoint from a folder or the hub. Raises ExportError or BundleNotFound."""
    folder, name, provenance = _locate(source, revision)
    config = _config(folder)
    weights = _weights_file(folder)
    tokenizer = _tokenizer(folder)
    model = _model(folder, weights)
    try:
        max_length = int(min(tokenizer.model_max_length, _positions(model.config)))
    except (TypeError, ValueError) as error:
        raise ExportError(f"{folder}: the configuration gives no window length: {error}") from error
    return Checkpoint(
        name=name,
        model=model,
        tokenizer=tokenizer,
        architecture=f"{config['model_type']} {model.config.num_hidden_layers}x{model.config.hidden_size}",
        max_length=max_length,
        provenance=provenance
        | {"weights": weights.name, "torch": torch.__version__, "transformers": transformers.__version__},
    )


def _positions(config: Any) -> int:
    """How many tokens have a position. Some start behind the padding id: their table is that much longer."""
    before = {"roberta": config.pad_token_id, "xlm-roberta": config.pad_token_id, "mpnet": 1}  # MPNet's is fixed
    most: int = config.max_position_embeddings
    return most - before[config.model_type] - 1 if config.model_type in before else most


def _locate(source: str | Path, revision: str | None) -> tuple[Path, str, dict[str, Any]]:
    path, text = Path(source), str(source)
    if path.exists():
        if not path.is_dir():
            raise ExportError(f"{text!r} is a file: name the folder that holds config.json and the weights")
        return path, path.resolve().name, {"checkpoint": path.resolve().name}
    if not text.startswith(hub.PREFIX) and (text.count("/") != 1 or text.startswith((".", "/", "~"))):
        raise BundleNotFound(f"no checkpoint at {text!r}: it is no folder, and a hub id is written hf://org/name")
    repo = hub.repo_id(text)
    beside = ["config.json", hub.CROSS_ENCODER_FILE, *hub.TOKENIZER_FILES]
    safe = hub.fetch(repo, revision, [*beside, *weight_patterns("safetensors")])
    if not any((safe.path / name).exists() for name in weight_patterns("safetensors")):
        hub.fetch(repo, safe.commit, weight_patterns("bin"))
    return safe.path, repo.split("/")[1], {"checkpoint": f"hf://{repo}", "revision": safe.commit}


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise ExportError(f"{folder} is no checkpoint: it has no config.json")
    try:
        config = loads((folder / "config.json").read_bytes())
    except ValueError as error:
        raise ExportError(f"{folder / 'config.json'} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ExportError(f"{folder / 'config.json'} must hold an object, it holds {type(config).__name__}")
    kind = config.get("model_type")
    named = config.get("architectures")
    classes = named if isinstance(named, list) else []
    if kind not in ARCHITECTURES or not all(str(name).endswith("ForSequenceClassification") for name in classes):
        own = "; code of its own (auto_map) is never run" if config.get("auto_map") else ""
        raise ExportError(
            f"{folder} holds {', '.join(map(str, classes)) or 'an unnamed architecture'} of type {kind!r}: "
            f"a scorer is a sequence classifier of type {', '.join(ARCHITECTURES[:-1])} or {ARCHITECTURES[-1]}{own}"
        )
    names = config.get("id2label")
    labels = len(names) if isinstance(names, dict) and names else config.get("num_labels", 2)
    if labels != 1:
        raise ExportError(
            f"{folder} has {labels} labels: a scorer has one (num_labels=1, a regression head); train it anew with "
            "num_labels=1, or take a reward model or reranker that gives one score"
        )
    _check_raw(folder, config)
    return config


def _check_raw(folder: Path, config: dict[str, Any]) -> None:
    """Raises ExportError when the configuration says that scores are something else than the model's raw output."""
    problem = config.get("problem_type")
    if problem not in (None, "regression"):
        raise ExportError(
            f"{folder / 'config.json'} has the problem_type {problem!r:.60}, whose scores go through a sigmoid or "
            "softmax: a scorer gives the raw output (regression); if that is what you want, take problem_type out"
        )
    beside = folder / hub.CROSS_ENCODER_FILE
    try:
        of_encoder = loads(beside.read_bytes()) if beside.is_file() else {}
    except ValueError as error:
        raise ExportError(f"{beside} is not JSON: {error}") from error
    nested = config.get("sentence_transformers")
    for file, held, key in (
        ("config.json", nested, "activation_fn"),
        ("config.json", config, "sbert_ce_default_activation_function"),  # before sentence-transformers 4
        (beside.name, of_encoder, "activation_fn"),
    ):
        named = held.get(key) if isinstance(held, dict) else None
        if named is not None and str(named).rpartition(".")[2] != "Identity":
            raise ExportError(
                f"{folder / file} says that scores go through {str(named)!r:.80} ({key}): a scorer gives the raw "
                "output (torch.nn.modules.linear.Identity); a sigmoid keeps the order, so if raw scores will do, take "
                f"{key} out of {file}"
            )


def _weights_file(folder: Path) -> WeightFiles:
    try:
        return weight_files(folder, _KINDS)
    except InputError as error:
        flax = "; Flax weights (.msgpack) can't be read yet: convert them with transformers 4"
        raise ExportError(f"{error}{flax if any(folder.glob('*.msgpack')) else ''}") from error


def _tokenizer(folder: Path) -> Any:
    # Without files transformers would make up an empty tokenizer, so look first.
    there = {name for name in hub.TOKENIZER_FILES if (folder / name).is_file()}
    if not there & {"tokenizer.json", "vocab.txt", "vocab.json", *hub.SENTENCEPIECE_FILES}:
        raise ExportError(
            f"{folder} has no tokenizer: expected tokenizer.json (or vocab.txt, or vocab.json and merges.txt)"
        )
    if there.isdisjoint({"tokenizer.json", "vocab.txt", "vocab.json"}) and find_spec("sentencepiece") is None:
        raise ExportError(
            f"{folder} has its tokenizer as a SentencePiece model only ({', '.join(there & hub.SENTENCEPIECE_FILES)}): "
            "expected tokenizer.json; to make it of that, transformers needs `pip install sentencepiece protobuf`"
        )
    try:
        if (folder / "tokenizer.json").is_file():
            checked_tokenizer((folder / "tokenizer.json").read_bytes())  # before it is loaded
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if tokenizer.is_fast:
            checked_tokenizer(tokenizer.backend_tokenizer.to_str().encode())  # transformers may have made it anew
    except Exception as error:  # transformers passes on whatever its parsers raise
        raise ExportError(f"the tokenizer of {folder} can't be read: {_line(error)}") from error
    if not tokenizer.is_fast:
        raise ExportError(f"the tokenizer of {folder} has no fast form (tokenizer.json)")
    tokenizer.split_special_tokens = True  # as the scorer reads texts: a special token's name is words
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _model(folder: Path, weights: WeightFiles) -> Any:
    try:
        with _quiet():
            model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation="eager",  # the form that onnxruntime's attention fusion recognises
                use_safetensors=weights.kind == "safetensors",
                weights_only=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # safetensors, pickle, json and shape errors have no common base
        raise ExportError(f"{folder / weights.name} can't be loaded: {_line(error)}") from error
    missing = sorted(key for key in report["missing_keys"] if "position_ids" not in key)
    if missing:
        raise ExportError(
            f"{folder / weights.name} lacks {len(missing)} weights, among them {missing[0]!r}: is it a scorer?"
        )
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ExportError(f"{folder / weights.name} is damaged: {key!r} holds values that are not finite")
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' own bars and reports off the terminal: what matters is raised."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

"""What a run starts from: a checkpoint's or a bundle's shape, weights and tokenizer, from a folder or a hub."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cappy_select.bundle import hub
from cappy_select.bundle.bundle import EMBEDDED, Bundle, is_bundle, load_bundle
from cappy_select.bundle.manifest import MANIFEST, MODEL, TOKENIZER
from cappy_select.core.errors import InputError, MissingExtra
from cappy_select.export.weight_files import KINDS, weight_patterns
from cappy_select.scorer.encoding import PairEncoder
from cappy_select.train.config import TrainConfig
from cappy_select.train.encoder import EncoderConfig
from cappy_select.train.weights import Array, read_checkpoint, read_config

DEFAULT = "embedded"  # as a `TrainConfig.checkpoint`: the scorer that comes with the library


class Start(NamedTuple):
    """See the module."""

    name: str  # a hub id, or the folder's name
    folder: Path
    shape: EncoderConfig
    weights: dict[str, Array]  # those it has: a head may be missing
    tokenizer: bytes  # tokenizer.json
    encoder: PairEncoder
    bundle: Bundle | None = None  # that the folder holds

    def facts(self, config: TrainConfig) -> dict[str, Any]:
        """For run.json: what it is called, and a hash of all that a run takes from it."""
        hashed = hashlib.sha256(self.shape.model_dump_json().encode() + self.tokenizer)
        for name, value in sorted(self.weights.items()):
            hashed.update(name.encode() + np.ascontiguousarray(value).tobytes())
        commit = self.folder.name if config.checkpoint.startswith(hub.PREFIX) else None
        facts = {"checkpoint": self.name, "commit": commit, "sha256": hashed.hexdigest()}
        if self.bundle is None:
            return facts
        return facts | {"bundle": {"name": str(self.bundle), "digest": self.bundle.digest}}

    @property
    def is_scorer(self) -> bool:
        """Whether it has a head: else what it scores before the first update is chance."""
        return "score_kernel" in self.weights

    @property
    def tokenizer_sha256(self) -> str:
        """Of the tokenizer."""
        return hashlib.sha256(self.tokenizer).hexdigest()


def starting_point(config: TrainConfig) -> Start:
    """Raises InputError or a BundleError when it can't be used, BundleNotFound when a hub has no such checkpoint."""
    folder = _folder(config)
    bundle = load_bundle(folder) if is_bundle(folder) else None
    if bundle is not None:
        shape, weights = _bundled(bundle)
        weights = {} if config.fresh else weights
    else:
        shape, weights = (read_config(folder), {}) if config.fresh else read_checkpoint(folder)
    for parameter, value in weights.items():
        if not np.isfinite(value).all():
            raise InputError(f"{folder} is damaged: its weights {parameter!r} hold values that are no finite numbers")
    if config.window > shape.max_length:
        raise InputError(f"the last bucket is {config.window} tokens, but {folder} takes {shape.max_length} at most")
    tokenizer = _tokenizer(folder) if bundle is None else bundle.read(TOKENIZER)
    encoder = PairEncoder(tokenizer, config.window, folder / "tokenizer.json")
    if encoder.vocabulary > shape.vocab_size:
        raise InputError(f"{folder}: its tokenizer has {encoder.vocabulary} tokens, its embeddings {shape.vocab_size}")
    name = config.checkpoint if config.checkpoint.startswith(hub.PREFIX) else folder.resolve().name
    return Start(name, folder, shape, weights, tokenizer, encoder, bundle)


def _bundled(bundle: Bundle) -> tuple[EncoderConfig, dict[str, Array]]:
    try:
        from cappy_select.train.bundled import read_bundle
    except ModuleNotFoundError as error:
        raise MissingExtra("train", f"starting from a bundle ({bundle.path})", "onnx") from error
    return read_bundle(bundle)


def _folder(config: TrainConfig) -> Path:
    if config.checkpoint == DEFAULT and not Path(DEFAULT).exists():
        return EMBEDDED
    if Path(config.checkpoint).exists() or not config.checkpoint.startswith(hub.PREFIX):
        if not Path(config.checkpoint).is_dir():
            raise InputError(
                f"no checkpoint at {config.checkpoint}: name the folder of one or of a bundle, a hub id as "
                f"hf://org/name, or {DEFAULT!r}"
            )
        return Path(config.checkpoint)
    repo = hub.repo_id(config.checkpoint)
    found = hub.fetch(repo, config.revision, [MANIFEST, "config.json", *hub.TOKENIZER_FILES])
    if (found.path / MANIFEST).is_file() and is_bundle(hub.fetch(repo, found.commit, [MODEL]).path):
        return found.path
    for kind in () if config.fresh else KINDS:  # a repository may hold the same weights in several forms
        patterns = weight_patterns(kind)
        found = hub.fetch(repo, found.commit, patterns)
        if any((found.path / name).is_file() for name in patterns):
            break
    return found.path


def _tokenizer(folder: Path) -> bytes:
    file = folder / "tokenizer.json"
    if file.is_file():
        return file.read_bytes()
    if not any((folder / name).is_file() for name in hub.TOKENIZER_FILES):
        raise InputError(
            f"{folder} has no tokenizer: expected tokenizer.json (or vocab.txt, or vocab.json, merges.txt)"
        )
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra("export", f"a tokenizer without tokenizer.json ({folder})", "transformers") from error
    loaded = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    content: str = loaded.backend_tokenizer.to_str()
    return content.encode()

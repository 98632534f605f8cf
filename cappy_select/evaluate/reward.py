"""Multiple choice by a reward model: a sequence classifier with one label, as transformers reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cappy_select.bundle import hub
from cappy_select.core.errors import BundleNotFound, InputError, MissingExtra

_WINDOW = 512  # tokens of a pair at most, as of the scorers it is compared with
_DESCRIBED = ("*.json", "*.txt", "*.model")  # configuration and tokenizer
_BATCH = 32  # pairs


class RewardJudge:
    """What a reward model gives (instruction, choice) pairs.

    Args:
        source: A folder, or a hub id: `org/name`, with or without `hf://`. Code of a checkpoint is never run, and
            `.bin` files are read as weights only.
        name: In reports; default: the source's last part.

    Raises InputError when there is none, it can't be loaded, or has not one label; MissingExtra without transformers.
    """

    def __init__(self, source: str, name: str | None = None) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingExtra("local", "a reward model", error.name or "transformers") from error
        folder = _folder(source)
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, split_special_tokens=True
            )  # as the scorers it is compared with read a text: a special token's name is words
            model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, weights_only=True, local_files_only=True, trust_remote_code=False,
                output_loading_info=True,
            )  # fmt: skip
        except Exception as error:  # of many kinds: missing files, damaged weights, another architecture
            raise InputError(f"{source} can't be loaded as a reward model: {type(error).__name__}: {error}") from error
        if config.num_labels != 1 or report["missing_keys"]:
            raise InputError(
                f"{source} is no reward model: it has {config.num_labels} labels, and lacks "
                f"{len(report['missing_keys'])} weights; expected one label (num_labels=1), and all weights"
            )
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
            model.config.pad_token_id = self._tokenizer.pad_token_id
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.to(self._device).eval()
        positions = getattr(config, "max_position_embeddings", None) or _WINDOW
        self._window = min(_WINDOW, self._tokenizer.model_max_length, positions)
        self.name = name or Path(source).name
        self.parameters = sum(weights.numel() for weights in model.parameters())

    def judge(
        self, pairs: Sequence[tuple[str, str]], on_progress: Callable[[int], None] | None = None
    ) -> Mapping[str, npt.NDArray[np.float64]]:
        """Under its name, its number for each (instruction, choice) pair: float64[pairs]."""
        import torch

        found = np.empty(len(pairs))
        order = sorted(range(len(pairs)), key=lambda place: -sum(map(len, pairs[place])))  # so little is padded
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            instructions, choices = zip(*(pairs[place] for place in places), strict=True)
            batch = self._tokenizer(
                list(instructions), list(choices), truncation="longest_first", max_length=self._window, padding=True,
                return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                found[places] = self._model(**batch.to(self._device)).logits[:, 0].cpu().numpy()
            if on_progress is not None:
                on_progress(len(places))
        return {self.name: found}


def _folder(source: str) -> Path:
    if Path(source).exists():
        return Path(source)
    try:
        repo = hub.repo_id(source)
        found = hub.fetch(repo, None, [*_DESCRIBED, "*.safetensors"])
        if not any(found.path.glob("*.safetensors")):
            found = hub.fetch(repo, found.commit, [*_DESCRIBED, "*.bin"])
    except BundleNotFound as error:
        raise InputError(f"no reward model at {source!r}: it is no folder, and {error}") from error
    return found.path

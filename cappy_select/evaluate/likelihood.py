"""Multiple choice by a language model: the choice whose tokens it finds the likeliest after the instruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cappy_select.ask.providers.transformers import TransformersProvider
from cappy_select.core import background
from cappy_select.core.errors import InputError
from cappy_select.evaluate.paper import named_parameters

PREFIX = "transformers:"
_SOURCE_TOKENS = 512  # the paper's cut


class LikelihoodJudge:
    """A local model's log-likelihood of a choice: the sum over its tokens, and their mean.

    Args:
        model: `transformers:PATH`, a folder or a hub id. Instructions are cut at 512 tokens, on the right.
        name: In reports; default: the path's last part.

    Raises InputError when it is not written so or can't be loaded, MissingExtra without transformers.
    """

    def __init__(self, model: str, name: str | None = None) -> None:
        if not model.startswith(PREFIX) or model == PREFIX:
            raise InputError(f"likelihoods are those of a local model, written {PREFIX}PATH; got {model!r}")
        self._provider = TransformersProvider(model.removeprefix(PREFIX), max_source_tokens=_SOURCE_TOKENS)
        self.name = name or Path(model.removeprefix(PREFIX)).name
        self.parameters = named_parameters(self.name)

    def judge(
        self, pairs: Sequence[tuple[str, str]], on_progress: Callable[[int], None] | None = None
    ) -> Mapping[str, npt.NDArray[np.float64]]:
        """By name, a number for each (instruction, choice) pair: float64[pairs].

        An empty choice is never the likeliest.
        Raises ProviderError for what does not fit the model's window.
        """
        sums, means = [], []
        for instruction, group in groupby(pairs, key=lambda pair: pair[0]):
            # A choice begins a line of its own: in the middle of one its first token would be another.
            choices = [choice for _, choice in group]
            for found in background.run(self._provider.log_likelihoods(f"{instruction}\n", choices)):
                tokens = found.logprobs[:-1]  # without the end of the sequence
                sums.append(sum(tokens) if tokens else -np.inf)
                means.append(sums[-1] / max(len(tokens), 1))
            if on_progress is not None:
                on_progress(len(choices))
        return {f"{self.name} sum": np.array(sums), f"{self.name} mean": np.array(means)}

"""What a run's loss and selection accuracy did, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cappy_select.core.errors import MissingExtra
from cappy_select.train.run import Update


def plot_training(updates: Sequence[Update], best: int | None, file: Path) -> None:
    """A PNG: above the losses, below the selection accuracy beside chance. Raises MissingExtra, OSError."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtra("train", "the plot of a training run", "matplotlib") from error
    losses = [(update.step, update.loss) for update in updates if update.loss is not None]
    evaluations = {update.step: update.evaluation for update in updates if update.evaluation is not None}
    chosen = {update: look for update, look in evaluations.items() if look.accuracy is not None}
    figure = Figure(figsize=(8, 6 if chosen else 3.5), layout="constrained")
    axes = figure.subplots(2 if chosen else 1, 1, sharex=True, squeeze=False)[:, 0]
    numbers, values = np.array([number for number, _ in losses]), np.array([value for _, value in losses])
    axes[0].plot(numbers, values, color="tab:blue", alpha=0.3, linewidth=0.8)
    window = max(1, len(values) // 40)
    if len(values) >= window:
        mean = np.convolve(values, np.ones(window) / window, mode="valid")
        axes[0].plot(numbers[window - 1 :], mean, color="tab:blue", label=f"training, mean of {window}")
    if evaluations:
        axes[0].plot(
            list(evaluations),
            [look.loss for look in evaluations.values()],
            "o-",
            color="tab:orange",
            label="validation, squared error",
        )
        axes[0].axvline(best or 0, color="grey", linestyle=":")
    axes[0].set_ylabel("loss")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False)
    if chosen:
        accuracies = [100 * (look.accuracy or 0) for look in chosen.values()]
        axes[1].plot(list(chosen), accuracies, "o-", color="tab:green", label="picks a best response")
        chance = 100 * (next(iter(chosen.values())).chance or 0)
        axes[1].axhline(chance, color="grey", linestyle="--", label=f"chance, {chance:.1f} %")
        axes[1].axvline(best or 0, color="grey", linestyle=":", label=f"the best: update {best}")
        axes[1].set_ylabel("selection accuracy, %")
        axes[1].legend(frameon=False)
    axes[-1].set_xlabel("update")
    figure.savefig(file, dpi=120)

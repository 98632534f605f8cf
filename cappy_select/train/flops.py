"""How much of what a machine could do is done: model FLOPs utilisation (MFU; Chowdhery et al. 2022, appendix B)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cappy_select.train.encoder import EncoderConfig

# Dense bf16 products, TFLOP/s a device, as their makers' data sheets say; the first name that is found counts.
_PEAKS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121,
    "TPU v6 lite": 918, "TPU v6e": 918, "TPU v5 lite": 197, "TPU v5e": 197, "TPU v5p": 459, "TPU v5": 459,
    "TPU v4": 275,
}  # fmt: skip


def training_flops(config: EncoderConfig, lengths: npt.NDArray[np.integer[Any]]) -> float:
    """Floating-point operations of one forward and backward pass over pairs of these lengths; padding has none.

    A multiplication and an addition are two; the backward pass is twice the forward one; what `remat` does again
    does not count.
    """
    width, wide = config.hidden_size, config.intermediate_size
    rows, tokens = len(lengths), float(lengths.sum())
    squares = float(np.square(lengths.astype(np.float64)).sum())
    whole = tokens * (8 * width**2 + 4 * width * wide) + 4 * width * squares
    # The last layer: keys and values of all tokens, the rest of the first one alone.
    last = tokens * (4 * width**2 + 4 * width) + rows * (4 * width**2 + 4 * width * wide)
    return 3 * ((config.num_hidden_layers - 1) * whole + last)


def peak_flops(device_kind: str, named_tflops: float | None) -> float | None:
    """What one device could do in a second: as named, or by its kind; None when neither is known (a CPU)."""
    if named_tflops is not None:
        return named_tflops * 1e12
    return next((tflops * 1e12 for name, tflops in _PEAKS.items() if name in device_kind), None)

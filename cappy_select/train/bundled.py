"""A bundle's weights, read back out of its model by the record that the export made of where they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from pydantic import ValidationError

from cappy_select.bundle.bundle import Bundle
from cappy_select.bundle.manifest import MANIFEST, MODEL, ParameterRecord
from cappy_select.core.errors import InputError, validation_message
from cappy_select.train.encoder import EncoderConfig, parameter_shapes
from cappy_select.train.weights import LAYERED, Array, checkpoint_name

_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)


def read_bundle(bundle: Bundle) -> tuple[EncoderConfig, dict[str, Array]]:
    """The shape and the parameters in a bundle: fp32 exactly, lower precisions as the bundle has them.

    Raises InputError when the manifest does not say where they are, or not truly, or they are of an architecture that
    is not trained; BundleDamaged when the file is not the bundle's.
    """
    manifest, place = bundle.manifest, bundle.path / MANIFEST
    if not manifest.parameters:
        raise InputError(
            f"{bundle.path} was made by an earlier version, which did not record where its weights are: export its "
            "checkpoint again, or start from the checkpoint"
        )
    try:
        config = EncoderConfig.model_validate(manifest.config)
    except ValidationError as error:
        raise InputError(f"{place}: config: {validation_message(error)}") from error
    shapes = parameter_shapes(config)
    numbers, most = sum(map(math.prod, shapes.values())), manifest.files[MODEL].size_bytes
    if numbers > most:  # each takes a byte or more
        raise InputError(f"{place}: config: {numbers:,} weights are more than the {most:,} bytes of {MODEL} can hold")
    with bundle.verified(MODEL) as path:
        try:
            tensors = {tensor.name: tensor for tensor in onnx.load(path, load_external_data=False).graph.initializer}
        except Exception as error:  # protobuf's own
            raise InputError(f"{bundle.path / MODEL} is no ONNX model: {type(error).__name__}") from error
    return config, {name: _parameter(name, shape, bundle, config, tensors) for name, shape in shapes.items()}


def _parameter(
    name: str, shape: tuple[int, ...], bundle: Bundle, config: EncoderConfig, tensors: dict[str, Any]
) -> Array:
    """A parameter as the encoder has it: kernels are [in, out] where torch has [out, in], layers are stacked."""
    stacked, kernel = name.rpartition("_")[0] in LAYERED, name.endswith("kernel")
    of_one = shape[1:] if stacked else shape
    value = np.empty((config.num_hidden_layers if stacked else 1, *of_one), np.float32)
    for layer in range(len(value)):
        known = checkpoint_name(name, config.model_type, layer if stacked else None)
        record = bundle.manifest.parameters.get(known)
        if record is None:
            raise InputError(f"{bundle.path} does not hold {known} as it was: start from the checkpoint that it is of")
        try:
            found = _values(record, of_one[::-1] if kernel else of_one, tensors)
        except ValueError as error:
            raise InputError(f"{bundle.path / MANIFEST}: {known}: {' '.join(str(error).split())[:300]}") from error
        value[layer] = found.T if kernel else found
    return value if stacked else value[0]


def _values(record: ParameterRecord, shape: tuple[int, ...], tensors: dict[str, Any]) -> Array:
    """What a record is of, in the checkpoint's shape. Raises ValueError when the file has something else."""
    value = _tensor(record.tensor, tensors)
    if record.scale is not None:
        scale = _tensor(record.scale, tensors)
        if value.ndim != 2 or scale.shape not in (value.shape[1:], (len(value), 1)):
            raise ValueError(f"its scale {record.scale!r:.80} has the shape {list(scale.shape)}")
        value = value * scale
    if record.third is not None:
        if value.ndim == 0 or value.shape[-1] % 3:
            raise ValueError(f"the tensor {record.tensor!r:.80} of shape {list(value.shape)} has no thirds")
        value = np.split(value, 3, axis=-1)[record.third]
    value = value.T if record.transposed else value
    if value.shape != shape:
        raise ValueError(f"{record.tensor!r:.80} holds the shape {list(value.shape)} where {list(shape)} fits")
    return value


def _tensor(name: str, tensors: dict[str, Any]) -> Array:
    if name not in tensors:
        raise ValueError(f"{name!r:.80} is no tensor of {MODEL}")
    tensor = tensors[name]
    if tensor.data_type not in _TYPES or tensor.data_location != onnx.TensorProto.DEFAULT:
        raise ValueError(f"{name!r:.80} holds no numbers of a kind that is exported")
    return np.asarray(numpy_helper.to_array(tensor), np.float32)

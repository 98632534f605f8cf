"""Which tensor of a bundle's graph holds which parameter of the checkpoint, so that training can start from the bundle.

Names would not do: torch's tracer stores parameters of equal values once and gives the matrices that it transposes
numbers, and the fusions put query, key and value into one. So parameters are found by their values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from cappy_select.bundle.manifest import ParameterRecord
from cappy_select.export.quantize import int8_names

SHAPE = (
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size", "relative_attention_num_buckets", "pad_token_id", "layer_norm_eps",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "initializer_range", "hidden_act",
    "position_embedding_type",
)  # fmt: skip
"""What of a configuration training reads: the fields of `cappy_select.train.encoder.EncoderConfig`."""

_Array = npt.NDArray[np.float32]
_COMPARED_FIRST = 16  # values: few tensors that differ have these alike


def shape_of(config: Any) -> dict[str, Any]:
    """What of a checkpoint's configuration training reads, as far as the architecture has it."""
    found = {name: getattr(config, name) for name in SHAPE if hasattr(config, name)}
    return {name: value for name, value in found.items() if value is None or isinstance(value, str | int | float)}


def find_parameters(model: Any, graph: Any) -> dict[str, ParameterRecord]:
    """Where a graph in fp32 holds the model's parameters, by their names in the checkpoint; those that it holds.

    Args:
        model: As torch has it.
        graph: With the fusions done, and nothing rounded.
    """
    wanted: dict[tuple[Any, ...], list[tuple[str, _Array]]] = {}
    for name, parameter in model.state_dict().items():
        value = parameter.numpy(force=True)  # torch's memory
        wanted.setdefault(_key(value), []).append((name, value))
    found: dict[str, ParameterRecord] = {}
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        for view, how in _views(numpy_helper.to_array(tensor)):
            for name, value in wanted.get(_key(view), ()):
                if name not in found and np.array_equal(view, value):
                    found[name] = ParameterRecord(tensor=tensor.name, **how)
    return found


def recorded(found: Mapping[str, ParameterRecord], graph: Any) -> dict[str, ParameterRecord]:
    """The same parameters in the graph as it is written, in whatever precision; those that it still holds."""
    there = {tensor.name for tensor in graph.initializer}
    records: dict[str, ParameterRecord] = {}
    for name, record in found.items():
        integers, scales = int8_names(record.tensor)
        if record.tensor in there:
            records[name] = record
        elif {integers, scales} <= there:
            records[name] = record.model_copy(update={"tensor": integers, "scale": scales})
    return records


def _views(array: _Array) -> Iterator[tuple[_Array, dict[str, Any]]]:
    """An array in the forms in which it may hold a parameter, with what a record says of each."""
    parts: list[tuple[_Array, dict[str, Any]]] = [(array, {})]
    if array.ndim and array.shape[-1] % 3 == 0:
        parts += [(part, {"third": i}) for i, part in enumerate(np.split(array, 3, axis=-1))]
    for part, how in parts:
        yield part, how
        if part.ndim == 2:
            yield part.T, how | {"transposed": True}


def _key(array: _Array) -> tuple[Any, ...]:
    """The same for equal arrays, and made without reading all of one."""
    return array.shape, array.flat[:_COMPARED_FIRST].tobytes()

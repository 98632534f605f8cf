"""int8 for the CPU, with scores that do not depend on the batch.

onnxruntime's dynamic int8 takes one activation scale for a whole batch, so a pair's score would change with
its neighbours. Here every row (one token's activations) has its own scale: the product of row scale and
column scale comes back after an exact integer product. The head stays in fp32.

    s = max|x| of the row / 127;  q = u8(x / s) + 128;  y = (q - 128) @ W_int8 * column scale * s
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

_MIN_TABLE_ROWS = 64  # smaller embedding tables (token types) are not worth a node
_LEVELS = 127


def to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace the encoder's MatMuls and the embedding tables; everything else stays as it is."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    constants = [
        numpy_helper.from_array(np.float32(_LEVELS), "int8_levels"),
        numpy_helper.from_array(np.float32(1e-12), "int8_smallest_scale"),
        numpy_helper.from_array(np.float32(1), "int8_one"),
        numpy_helper.from_array(np.uint8(128), "int8_zero"),
    ]
    nodes: list[Any] = []
    replaced: set[str] = set()
    rows_done: set[str] = set()  # query, key and value share their input: quantise it once
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            rows, weight = node.input
            if rows not in rows_done:
                nodes += _quantize_rows(rows)
                rows_done.add(rows)
            if weight not in replaced:  # DeBERTa's are used for states and for distances
                constants += _weight_tensors(weight, numpy_helper.to_array(weights[weight]))
            nodes += _matmul(rows, weight, node.output[0])
            replaced.add(weight)
        elif node.op_type == "Gather" and _is_table(weights.get(node.input[0])):
            table = node.input[0]
            if table not in replaced:
                constants += _table_tensors(table, numpy_helper.to_array(weights[table]))
            nodes += _lookup(table, node.input[1], node.output[0])
            replaced.add(table)
        else:
            nodes.append(node)
    kept = [tensor for tensor in graph.initializer if tensor.name not in replaced]
    new_graph = helper.make_graph(nodes, graph.name, graph.input, graph.output, [*kept, *constants])
    return helper.make_model(new_graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def int8_names(name: str) -> tuple[str, str]:
    """What a weight's integers and their scales are called."""
    return f"{name}_int8", f"{name}_scale"


def column_scales(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A scale for each column of [inputs, outputs], such that no CPU saturates.

    Without VNNI an x86 CPU multiplies u8 by s8 in pairs (vpmaddubsw) and saturates their sum at 16 bits:
    255 * (|a| + |b|) must stay below 32768, so |a| + |b| <= 128 for neighbouring rows of one column. The
    scores are then the same integers on every CPU.
    """
    magnitude = np.abs(weight)
    if len(magnitude) % 2:
        magnitude = np.vstack([magnitude, np.zeros_like(magnitude[:1])])
    pairs = magnitude[0::2] + magnitude[1::2]
    scales: npt.NDArray[np.float32] = pairs.max(axis=0).astype(np.float32) / np.float32(_LEVELS)
    scales[scales == 0] = 1
    return scales


def _quantize_rows(rows: str) -> list[Any]:
    return [
        helper.make_node("Abs", [rows], [f"{rows}_abs"]),
        helper.make_node("ReduceMax", [f"{rows}_abs"], [f"{rows}_max"], axes=[-1], keepdims=1),
        helper.make_node("Div", [f"{rows}_max", "int8_levels"], [f"{rows}_scale_or_0"]),
        helper.make_node("Max", [f"{rows}_scale_or_0", "int8_smallest_scale"], [f"{rows}_scale"]),
        helper.make_node("Div", [rows, f"{rows}_scale"], [f"{rows}_scaled"]),
        helper.make_node("QuantizeLinear", [f"{rows}_scaled", "int8_one", "int8_zero"], [f"{rows}_u8"]),
    ]


def _weight_tensors(name: str, weight: npt.NDArray[np.float32]) -> list[Any]:
    scales = column_scales(weight)
    integers, their_scales = int8_names(name)
    return [
        numpy_helper.from_array(np.rint(weight / scales).astype(np.int8), integers),
        numpy_helper.from_array(scales, their_scales),
        numpy_helper.from_array(np.zeros(len(scales), np.int8), f"{name}_zero"),
    ]


def _matmul(rows: str, weight: str, out: str) -> list[Any]:
    integers, scales = int8_names(weight)
    inputs = [f"{rows}_u8", integers, "int8_one", scales, "int8_zero", f"{weight}_zero"]
    return [
        helper.make_node("MatMulIntegerToFloat", inputs, [f"{out}_unscaled"], domain="com.microsoft"),
        helper.make_node("Mul", [f"{out}_unscaled", f"{rows}_scale"], [out]),
    ]


def _is_table(tensor: Any) -> bool:
    return tensor is not None and len(tensor.dims) == 2 and tensor.dims[0] >= _MIN_TABLE_ROWS


def _table_tensors(name: str, table: npt.NDArray[np.float32]) -> list[Any]:
    scales = np.abs(table).max(axis=1, keepdims=True).astype(np.float32) / np.float32(_LEVELS)
    scales[scales == 0] = 1  # RoBERTa's padding row is all zeros
    integers, their_scales = int8_names(name)
    return [
        numpy_helper.from_array(np.rint(table / scales).astype(np.int8), integers),
        numpy_helper.from_array(scales, their_scales),
    ]


def _lookup(table: str, ids: str, out: str) -> list[Any]:
    integers, scales = int8_names(table)
    return [
        helper.make_node("Gather", [integers, ids], [f"{out}_int8"]),
        helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", [scales, ids], [f"{out}_table_scale"]),
        helper.make_node("Mul", [f"{out}_float", f"{out}_table_scale"], [out]),
    ]

"""From the torch model to an optimised ONNX graph, in the precision asked for."""

from __future__ import annotations

import inspect
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch

from cappy_select.bundle.manifest import ParameterRecord, Precision
from cappy_select.core.errors import ExportError
from cappy_select.core.telemetry_off import onnxruntime_optimizer
from cappy_select.export.attention import one_node
from cappy_select.export.cpu import split_for_cpu
from cappy_select.export.parameters import find_parameters, recorded
from cappy_select.export.quantize import to_int8

_UNTYPED = ("roberta", "xlm-roberta")
_ATTENTION = ("Attention", "MultiHeadAttention")
_OPSET = 17  # the newest that the fusions of onnxruntime 1.20 to 1.31 all know


class _ScoreModel(torch.nn.Module):
    """The checkpoint with the bundle's signature: named inputs, one raw score a row."""

    def __init__(self, model: Any, start: Callable[[torch.Tensor], None]) -> None:
        super().__init__()
        self.model, self.start = model, start

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        named = dict(zip(input_names(self.model), inputs, strict=True))
        self.start(named["attention_mask"])
        logits: torch.Tensor = self.model(**named).logits
        return logits[:, 0]  # [rows, 1] -> [rows]


def input_names(model: Any) -> list[str]:
    """The graph's inputs. Type ids are fed where the model has a choice of types: RoBERTa's table has one row."""
    names = ["input_ids", "attention_mask"]
    takes = "token_type_ids" in inspect.signature(model.forward).parameters
    typed = takes and model.config.model_type not in _UNTYPED and getattr(model.config, "type_vocab_size", 0) > 1
    return [*names, "token_type_ids"] if typed else names


class Written(NamedTuple):
    """What a model's file has become."""

    fused: int  # layers in which attention is one node
    layers: int
    parameters: dict[str, ParameterRecord]


def write_model(model: Any, path: Path, precision: Precision, window: int) -> Written:
    """Write the model's ONNX form for pairs of up to `window` tokens to `path`.

    Raises ExportError when the model is too large for a file.
    """
    with tempfile.TemporaryDirectory() as scratch:
        traced = Path(scratch) / "traced.onnx"
        _trace(model, traced, window)
        # int8 quantises the projections around the attention, so it wants them outside the fused node.
        fused = _fuse(traced, model.config, split_projections=precision == "int8")
    if precision != "fp16":
        split_for_cpu(fused.model.graph)
    found = find_parameters(model, fused.model.graph)  # while the graph still holds them as the checkpoint does
    if precision == "fp16":
        fused.convert_float_to_float16(keep_io_types=True)
    graph = to_int8(fused.model) if precision == "int8" else fused.model
    try:
        onnx.save(graph, path)
    except ValueError as error:  # protobuf's 2 GiB
        raise ExportError(f"the model does not fit one ONNX file: {error}; try precision fp16 or int8") from error
    attention = sum(node.op_type in _ATTENTION for node in graph.graph.node)
    return Written(attention, model.config.num_hidden_layers, recorded(found, graph.graph))


def _trace(model: Any, path: Path, window: int) -> None:
    names = input_names(model)
    example = torch.ones(2, 7, dtype=torch.long)
    with warnings.catch_warnings(), torch.no_grad(), one_node(model, window) as start:
        # The TorchScript exporter is deprecated, but its graphs are the ones the fusions recognise.
        # What it warns of (values taken for constants) is measured: `parity` compares many shapes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _ScoreModel(model, start).eval(),  # the exporter puts back the mode it found, dropout and all
            tuple(example for _ in names),
            str(path),
            input_names=names,
            output_names=["score"],
            dynamic_axes={name: {0: "rows", 1: "tokens"} for name in names} | {"score": {0: "rows"}},
            opset_version=_OPSET,
            dynamo=False,
        )


def _fuse(path: Path, config: Any, *, split_projections: bool) -> Any:
    optimizer = onnxruntime_optimizer()
    options = optimizer.FusionOptions("bert")
    options.enable_embed_layer_norm = False  # its tables could not be stored as int8
    options.use_multi_head_attention = split_projections
    # The second, onnxruntime's too, says of each sliced shape that it is not a number.
    logs = [logging.getLogger(name) for name in ("onnxruntime.transformers", "symbolic_shape_infer")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        fused = optimizer.optimize_model(
            str(path),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,
            optimization_options=options,
        )
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
    return fused

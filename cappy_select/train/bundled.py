"""A bundle's weights, read back out of its graph by the names that the encoder gives them.

The walk goes from `score` back to the embeddings, by what each node does and what feeds it. Names would not do: torch's
tracer stores parameters of equal values once, and gives the matrices it transposes numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from cappy_select.bundle.bundle import Bundle
from cappy_select.bundle.manifest import MODEL, MODEL_CONFIG
from cappy_select.core.errors import InputError
from cappy_select.core.json_text import loads
from cappy_select.train.encoder import EncoderConfig, parameter_shapes
from cappy_select.train.weights import Array


def read_bundle(bundle: Bundle) -> tuple[EncoderConfig, dict[str, Array]]:
    """The shape and the parameters in a bundle: fp32 exactly, lower precisions as the bundle has them.

    What the graph does not show (dropout) is what the export noted in the file, else the architecture's usual.
    Raises InputError when the graph is none that `cappy export` makes, BundleDamaged when the file is not the bundle's.
    """
    with bundle.verified(MODEL) as path:
        try:
            return _read(onnx.load(path, load_external_data=False))
        except Exception as error:  # protobuf's own, or whatever is not as the walk expects it
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise InputError(
                f"{bundle.path / MODEL} is no graph that `cappy export` makes, its weights can't be read ({reason}): "
                "start from the checkpoint that the bundle was made of"
            ) from error


def _read(model: Any) -> tuple[EncoderConfig, dict[str, Array]]:
    graph = _Graph(model.graph)
    head: dict[str, Array] = {}
    hidden = graph.dense(graph.node("score", "Gather").input[0], "score", head)
    first = graph.dense(graph.node(hidden, "Tanh").input[0], "pool", head)
    states = graph.node(first, "Gather").input[0]
    layers: list[dict[str, Array]] = []
    for _ in range(sum(node.op_type in _ATTENTION for node in model.graph.node)):
        states, layer = graph.layer(states)
        layers.insert(0, layer)
    if not layers:
        raise ValueError("its attention is not fused")
    stacked = {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}
    parameters = graph.embeddings(states) | stacked | head
    noted = {entry.key: entry.value for entry in model.metadata_props}.get(MODEL_CONFIG, "{}")
    config = EncoderConfig.model_validate(
        {"pad_token_id": 0}  # BERT's, unless noted
        | loads(noted)
        | graph.seen
        | {
            "vocab_size": len(parameters["word"]),
            "hidden_size": parameters["word"].shape[1],
            "num_hidden_layers": len(layers),
            "intermediate_size": parameters["up_kernel"].shape[2],
            "max_position_embeddings": len(parameters["position"]),
            "type_vocab_size": len(parameters["type"]),
        }
    )
    for name, shape in parameter_shapes(config).items():
        if parameters[name].shape != shape:
            raise ValueError(f"{name} has the shape {parameters[name].shape} where {shape} fits")
    return config, parameters


_ATTENTION = ("Attention", "MultiHeadAttention")


class _Graph:
    """A graph's nodes by what they make, its parameters, and what of its shape was `seen` in passing."""

    def __init__(self, graph: Any) -> None:
        self._made_by = {output: node for node in graph.node for output in node.output}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        # As `cappy_select.export.graph.input_names` has it: RoBERTa is never fed type ids.
        typed = any(each.name == "token_type_ids" for each in graph.input)
        self.seen: dict[str, Any] = {"model_type": "bert" if typed else "roberta"}

    def see(self, name: str, value: float) -> None:
        if self.seen.setdefault(name, value) != value:
            raise ValueError(f"{name} is {value} here and {self.seen[name]} there")

    def node(self, value: str, *kinds: str) -> Any:
        """What makes a value, casts aside."""
        node = self._made_by.get(value)
        while node is not None and node.op_type == "Cast":
            node = self._made_by.get(node.input[0])
        if node is None or node.op_type not in kinds:
            found = "no node" if node is None else node.op_type
            raise ValueError(f"{value!r} is made by {found}, expected {' or '.join(kinds)}")
        return node

    def tensor(self, name: str) -> Array:
        if name not in self._tensors:
            raise ValueError(f"{name!r} is no tensor of the file")
        return np.asarray(numpy_helper.to_array(self._tensors[name]), np.float32)

    def layer(self, value: str) -> tuple[str, dict[str, Array]]:
        """A layer's parameters, and the states it starts from."""
        found: dict[str, Array] = {}
        down, attended, bias = self.norm(value, "output_norm", found)
        wide = self.node(self.dense(down, "down", found, bias), "BiasGelu")
        up = self.dense(wide.input[0], "up", found, wide.input[1])
        projected, states, bias = self.norm(attended, "attention_norm", found)
        mixed = self.dense(projected, "attention", found, bias)
        if up != attended or self.attention(mixed, found) != states:
            raise ValueError(f"what {value!r} adds up is not a layer's")
        return states, found

    def attention(self, value: str, found: dict[str, Array]) -> str:
        """What is attended to."""
        node = self.node(value, *_ATTENTION)
        self.see("num_attention_heads", _attribute(node, "num_heads").i)
        names = ("query", "key", "value")
        if node.op_type == "Attention":
            states, kernels, biases = node.input[:3]
            for part, of in (("kernel", kernels), ("bias", biases)):
                for name, each in zip(names, np.split(self.tensor(of), 3, axis=-1), strict=True):
                    found[f"{name}_{part}"] = each
            return str(states)
        (states,) = {self.dense(node.input[place], name, found) for place, name in enumerate(names)}
        return states

    def norm(self, value: str, name: str, found: dict[str, Array]) -> tuple[str, str, str | None]:
        """The two values whose sum is normed, and a bias that is yet to be added to the first."""
        node = self.node(value, "LayerNormalization", "SkipLayerNormalization")
        self.see("layer_norm_eps", float(str(np.float32(_attribute(node, "epsilon").f))))  # 1e-12, not 9.99999996e-13
        if node.op_type == "LayerNormalization":
            rows, scale, bias = node.input
            (first, second), after = self.node(rows, "Add").input, None
        else:
            first, second, scale, bias, *rest = node.input
            after = rest[0] if rest else None
        found[f"{name}_scale"], found[f"{name}_bias"] = self.tensor(scale), self.tensor(bias)
        return first, second, after

    def dense(self, value: str, name: str, found: dict[str, Array], bias: str | None = None) -> str:
        """What is projected. The bias is added in this node, unless it is given."""
        node = self.node(value, "Gemm", "Add", "MatMul", "Mul")
        if node.op_type == "Gemm":
            rows, weight, bias = node.input
            kernel = self.tensor(weight)
            kernel = kernel.T if _attribute(node, "transB").i else kernel
        else:
            if bias is None:
                value, bias = sorted(self.node(value, "Add").input, key=self._tensors.__contains__)
            node = self.node(value, "MatMul", "Mul")
            rows, kernel = self._product(node)
        found[f"{name}_kernel"], found[f"{name}_bias"] = kernel, self.tensor(bias)
        return str(rows)

    def _product(self, node: Any) -> tuple[str, Array]:
        """A product's rows and its matrix; see `cappy_select.export.quantize` for int8."""
        if node.op_type == "MatMul":
            return node.input[0], self.tensor(node.input[1])
        rows, weight, _, scale, _, zero = self.node(node.input[0], "MatMulIntegerToFloat").input
        scaled = self.node(self.node(rows, "QuantizeLinear").input[0], "Div")
        return scaled.input[0], (self.tensor(weight) - self.tensor(zero)) * self.tensor(scale)

    def embeddings(self, value: str) -> dict[str, Array]:
        """The tables and their norm."""
        found: dict[str, Array] = {}
        first, second, _ = self.norm(value, "embedding_norm", found)
        sums = [first, second]
        while sums:
            node = self.node(sums.pop(), "Add", "Gather", "Mul")
            if node.op_type == "Add":
                sums += node.input
            elif node.op_type == "Gather":
                found[self._table(node.input[1])] = self.tensor(node.input[0])
            else:  # int8
                rows, scales = (self.node(each, "Gather") for each in node.input)
                found[self._table(rows.input[1])] = self.tensor(rows.input[0]) * self.tensor(scales.input[0])
        return found

    def _table(self, indices: str) -> str:
        """Which table is looked up by these."""
        if indices in ("input_ids", "token_type_ids"):
            return "word" if indices == "input_ids" else "type"
        if self.seen["model_type"] == "bert":
            return "position"
        if self._made_by[indices].op_type != "Add":
            return "type"  # RoBERTa's are zeros, made in the graph
        summands = [self._made_by[each] for each in self._made_by[indices].input]
        (padding,) = (each for each in summands if each.op_type == "Constant")  # that positions are counted from
        self.see("pad_token_id", int(numpy_helper.to_array(_attribute(padding, "value").t)))
        return "position"


def _attribute(node: Any, name: str) -> Any:
    """Raises ValueError when the node has none of this name."""
    (found,) = (attribute for attribute in node.attribute if attribute.name == name)
    return found

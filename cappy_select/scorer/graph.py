"""What a model may be made of: the operators that `cappy export` writes, and nothing that runs without end.

`model.onnx` of a bundle from elsewhere is a program. This one has no loops, no branches, no chance, no strings, no
files beside it and no operators of its own, so it computes what its shapes allow and ends. The file is walked as
protobuf's wire format (https://protobuf.dev/programming-guides/encoding/) by the field numbers of onnx.proto, since
the `onnx` package comes with the `export` extra only. What the walk does not know is refused.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

ONNX = frozenset(
    (  # noqa: SIM905
        # arithmetic, element by element
        "Abs Add Cast Ceil Clip Cos Div Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log Max Mean "
        "Min Mish Mod Mul Neg Pow QuantizeLinear DequantizeLinear Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus "
        "Softsign Sqrt Sub Sum Tanh "
        # comparisons
        "And Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Not Or Where Xor "
        # products, sums, norms
        "ArgMax ArgMin Conv CumSum Einsum Gemm LayerNormalization LogSoftmax MatMul MatMulInteger ReduceL2 ReduceMax "
        "ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare RMSNormalization SimplifiedLayerNormalization "
        "Softmax DynamicQuantizeLinear "
        # shapes
        "Concat Constant ConstantOfShape Expand Flatten Gather GatherElements GatherND Range Reshape ScatterElements "
        "ScatterND Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze"
    ).split()
)
MICROSOFT = frozenset(
    (  # noqa: SIM905
        "Attention BiasGelu BiasSoftmax FastGelu Gelu LayerNormalization MatMulIntegerToFloat MultiHeadAttention "
        "DynamicQuantizeMatMul PackedAttention QuickGelu RelativePositionBias RotaryEmbedding "
        "SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization"
    ).split()
)
_ALLOWED = {"": ONNX, "ai.onnx": ONNX, "com.microsoft": MICROSOFT}
_MOST_FIELDS = 1_000_000  # read one by one; RoBERTa-large in int8 has 20,000

# Field numbers of onnx.proto that are read or harmless; all others are refused.
_MODEL_PLAIN = frozenset({1, 2, 3, 4, 5, 6, 14})  # versions, names, metadata
_MODEL_GRAPH, _MODEL_OPSET = 7, 8
_GRAPH_PLAIN = frozenset({2, 10, 11, 12, 13, 14, 16})  # names, inputs, outputs, types, quantisation notes
_GRAPH_NODE, _GRAPH_TENSOR = 1, 5
_NODE_PLAIN = frozenset({1, 2, 3, 6, 9})
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_PLAIN = frozenset({1, 2, 3, 4, 7, 8, 13, 20})  # numbers and single words
_ATTRIBUTE_TENSORS = frozenset({5, 10})
_TENSOR_PLAIN = frozenset({1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 16})
_TENSOR_LOCATION = 14


class Refused(ValueError):
    """The model holds what it must not; the message says what."""


def check_graph(path: Path) -> None:
    """Raises Refused when the ONNX model in a file is none that a scorer may be."""
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise Refused("it is empty") from error
        with content:
            _Walk(content).model()


class _Walk:
    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._fields = 0

    def model(self) -> None:
        for number, value in self._message(0, len(self._content)):
            if number == _MODEL_GRAPH:
                self._graph(*self._part(value))
            elif number == _MODEL_OPSET:
                self._opset(*self._part(value))
            elif number not in _MODEL_PLAIN:  # functions, training
                raise Refused(f"it has parts of another kind than a graph (field {number} of the model)")

    def _opset(self, start: int, end: int) -> None:
        for number, value in self._message(start, end):
            if number == 1:
                self._domain(self._text(value))

    def _graph(self, start: int, end: int) -> None:
        for number, value in self._message(start, end):
            if number == _GRAPH_NODE:
                self._node(*self._part(value))
            elif number == _GRAPH_TENSOR:
                self._tensor(*self._part(value))
            elif number not in _GRAPH_PLAIN:
                raise Refused(f"its graph holds what no export writes (field {number})")

    def _node(self, start: int, end: int) -> None:
        operators, domains = [], [""]
        for number, value in self._message(start, end):
            if number == _NODE_OPERATOR:
                operators.append(self._text(value))
            elif number == _NODE_DOMAIN:
                domains.append(self._text(value))
            elif number == _NODE_ATTRIBUTE:
                self._attribute(*self._part(value))
            elif number not in _NODE_PLAIN:
                raise Refused(f"a node holds what no export writes (field {number})")
        domain = domains[-1]
        if len(operators) != 1 or len(domains) > 2:
            raise Refused("a node has not one operator")
        if operators[0] not in self._domain(domain):
            raise Refused(f"it uses the operator {f'{domain}.' * bool(domain)}{operators[0]}"[:120])

    def _attribute(self, start: int, end: int) -> None:
        for number, value in self._message(start, end):
            if number in _ATTRIBUTE_TENSORS:
                self._tensor(*self._part(value))
            elif number not in _ATTRIBUTE_PLAIN:
                raise Refused(f"a node has a graph or strings of its own (field {number} of an attribute)")

    def _tensor(self, start: int, end: int) -> None:
        for number, value in self._message(start, end):
            if (number == _TENSOR_LOCATION and value != 0) or number not in (*_TENSOR_PLAIN, _TENSOR_LOCATION):
                raise Refused(f"its weights are in a file of their own, or are strings (field {number} of a tensor)")

    def _domain(self, name: str) -> frozenset[str]:
        if name not in _ALLOWED:
            raise Refused(f"it uses operators of {name[:80]!r}")
        return _ALLOWED[name]

    def _part(self, value: int | tuple[int, int]) -> tuple[int, int]:
        if isinstance(value, int):
            raise Refused("it is not an ONNX model")
        return value

    def _text(self, value: int | tuple[int, int]) -> str:
        start, end = self._part(value)
        return self._content[start : min(end, start + 200)].decode("utf-8", "replace")

    def _message(self, at: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
        """A message's fields: their numbers, and their values as a number or as the bytes from where to where."""
        while at < end:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise Refused(f"it has over {_MOST_FIELDS:,} fields")
            tag = self._content[at]
            if tag < 0x80:
                at += 1
            else:
                tag, at = self._varint(at, end)
            number, kind = tag >> 3, tag & 7
            if kind == 0:
                value, at = self._varint(at, end)
                yield number, value
                continue
            if kind == 2:
                length, at = self._varint(at, end)
            elif kind in (1, 5):
                length = 8 if kind == 1 else 4
            else:
                raise Refused("it is not an ONNX model")
            if length > end - at:
                raise Refused("it is not an ONNX model: it ends early")
            yield number, (at, at + length)
            at += length

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self._content[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise Refused("it is not an ONNX model")

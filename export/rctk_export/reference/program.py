"""A whole graph, ready to run: nodes checked, grids read, constant parts computed once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import inliner, numpy_helper, version_converter

from rctk_export.graph import attributes, constant_value
from rctk_export.reference import linear, moving, pointwise, pooling, quantization, sampling, shapes
from rctk_export.reference.shapes import widened
from rctk_export.reference.values import Array, Node, Operator, Value
from rctk_kernels.errors import GraphError, QuantizationError, UnsupportedOperatorError

OPERATORS: dict[str, Operator] = {
    name: operator
    for module in (linear, moving, pointwise, pooling, quantization, sampling, shapes)
    for name, operator in module.OPERATORS.items()
}
OLDEST_OPSET = 13


class Program:
    """An ONNX graph that runs in NumPy.

    Args:
        model: With its weights in memory; :func:`rctk_export.onnx_files.load_onnx` reads one.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        model = _modern(inliner.inline_local_functions(model) if model.functions else model)
        self.constants: dict[str, Value] = {}
        arrays, types = _constants(model)
        self.constants.update(arrays)
        self._nodes: list[Node] = []
        for proto in model.graph.node:
            if proto.op_type != "Constant":
                self._add(_node(proto), arrays, types)
        self._last_use = {name: i for i, node in enumerate(self._nodes) for name in node.inputs}

    def _add(self, node: Node, arrays: Mapping[str, Array], types: Mapping[str, int]) -> None:
        """Keep a node, or its result where all its inputs are constants."""
        if node.op in quantization.OPERATORS:
            node = quantization.bind_grid(node, arrays, types)
        if all(name in self.constants for name in node.inputs if name):
            self.constants.update(_apply(node, self.constants))
        else:
            self._nodes.append(node)

    def run(self, feed: Mapping[str, Array], names: Collection[str]) -> dict[str, Value]:
        """Return the tensors called ``names``, computed from the inputs in ``feed``."""
        values: dict[str, Value] = {**self.constants, **feed}
        for i, node in enumerate(self._nodes):
            values.update(_apply(node, values))
            for name in (*node.inputs, *node.outputs):
                if self._last_use.get(name, i) == i and name not in names:
                    values.pop(name, None)
        missing = [name for name in names if name not in values]
        if missing:
            raise GraphError(f"the graph has no tensor {missing[0]!r}; `rctk inspect` lists them")
        return {name: values[name] for name in names}


def _apply(node: Node, values: Mapping[str, Value]) -> dict[str, Value]:
    """Run one node; its outputs by name."""
    try:
        given = [values[name] if name else None for name in node.inputs]
    except KeyError as error:
        raise GraphError(f"{node.op} {node.name!r} reads {error}, which nothing before it makes") from error
    try:
        with np.errstate(all="ignore"):  # infinities and NaN travel as they do in every runtime
            result = OPERATORS[node.op](node, *given)
    except QuantizationError as error:
        raise QuantizationError(f"{node.op} {node.name!r}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise GraphError(f"{node.op} {node.name!r} does not fit its inputs: {error}") from error
    results = result if isinstance(result, tuple) else (result,)
    return {name: value for name, value in zip(node.outputs, results, strict=False) if name}


def _node(proto: onnx.NodeProto) -> Node:
    name = proto.name or (proto.output[0] if proto.output else "")
    if proto.domain not in {"", "ai.onnx"} or proto.op_type not in OPERATORS:
        word = f"{proto.domain}::{proto.op_type}" if proto.domain else proto.op_type
        raise UnsupportedOperatorError(
            f"the reference engine has no operator {word} (node {name!r}); run the file with onnxruntime"
        )
    values = {key: _text(value) for key, value in attributes(proto).items()}
    return Node(proto.op_type, name, tuple(proto.input), tuple(proto.output), values)


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _constants(model: onnx.ModelProto) -> tuple[dict[str, Array], dict[str, int]]:
    """Read initializers and Constant nodes: arrays with floats widened, and their ONNX types."""
    arrays: dict[str, Array] = {}
    types: dict[str, int] = {}
    for tensor in model.graph.initializer:
        arrays[tensor.name], types[tensor.name] = numpy_helper.to_array(tensor), tensor.data_type
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = constant_value(node)
            arrays[node.output[0]] = value
            types[node.output[0]] = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return {name: _stored(array, types[name]) for name, array in arrays.items()}, types


def _stored(array: Array, data_type: int) -> Array:
    bits, signed = quantization.WIDTHS.get(data_type, (8, True))
    return array.astype(np.int8 if signed else np.uint8) if bits < 8 else widened(array)


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a graph of an old opset; the operators here know those of opset 13 and newer."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except (RuntimeError, version_converter.ConvertError) as error:
        reason = " ".join(str(error).split())[:300]
        raise GraphError(f"opset {opset} cannot be converted to {OLDEST_OPSET}, export it anew: {reason}") from error

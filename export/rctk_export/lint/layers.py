"""The layers of a graph as a table: shape, arithmetic, why it is float, scales, parameters, multiplications."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from rctk_export.graph import attributes
from rctk_export.lint.view import LAYERS, Quantizer, View, label, wide

LEARNED = {"BatchNormalization": (1, 2), "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2), "PRelu": (1,)}
"""Inputs of other operators that are trained, too."""
NARROW = {
    TensorProto.INT4: "int4",
    TensorProto.UINT4: "int4",
    TensorProto.INT2: "int2",
    TensorProto.UINT2: "int2",
}


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One node that multiplies by weights.

    Attributes:
        name: Of the node.
        op: Its operator.
        weight_shape: As stored; empty where both factors are computed.
        arithmetic: ``int8``, ``int4`` or ``int2`` where Q/DQ surround its inputs, ``weights only``, or ``float``.
        reason: Why it is not in integers; empty where it is.
        weight_scales: Smallest and largest scale of the weight; None where it has none.
        input_scale: Scale of the input; None where it has none.
        parameters: Elements of weight and bias.
        macs: Multiplications with addition for one image; None where a shape is unknown.
    """

    name: str
    op: str
    weight_shape: tuple[int, ...]
    arithmetic: str
    reason: str
    weight_scales: tuple[float, float] | None
    input_scale: float | None
    parameters: int
    macs: int | None


def layer_rows(model: onnx.ModelProto, reasons: Mapping[str, str] | None = None) -> list[LayerRow]:
    """Return a row for every layer, in graph order.

    Args:
        model: Weights in memory; it is not changed.
        reasons: Name of a layer to the reason why it was left in float, where somebody noted it.
    """
    view = View(_one_image(model))
    return [_row(view, node, reasons or {}) for node in view.layers]


def parameter_count(model: onnx.ModelProto) -> int:
    """Return the number of trained values: weights and biases of layers, gains and offsets of normalisations."""
    view = View(model)
    names: set[str] = set()
    for node in view.graph.nodes:
        slots = range(1, 3) if node.op_type in LAYERS else LEARNED.get(node.op_type, ())
        roots = {view.root(node.input[slot]) for slot in slots if slot < len(node.input) and node.input[slot]}
        names |= roots & view.graph.constants.keys()
    return sum(view.graph.constants[name].size for name in names)


def _one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    stored = {tensor.name for tensor in copy.graph.initializer}
    for entry in copy.graph.input:
        if entry.name not in stored and entry.type.tensor_type.shape.dim:
            entry.type.tensor_type.shape.dim[0].dim_value = 1
    for out in copy.graph.output:
        out.type.tensor_type.ClearField("shape")  # it may repeat another batch size
    return copy


def _row(view: View, node: NodeProto, reasons: Mapping[str, str]) -> LayerRow:
    weight, source = view.quantizers.get(node.input[1]), view.dequantizers(node.input[0])
    arithmetic, reason = _arithmetic(view, node)
    shape = view.graph.constants.get(view.root(node.input[1]))
    return LayerRow(
        name=label(node),
        op=node.op_type,
        weight_shape=() if shape is None else shape.shape,
        arithmetic=arithmetic,
        reason=reasons.get(label(node), reason) if reason else "",
        weight_scales=_scales(weight),
        input_scale=next((scales[0] for scales in map(_scales, source or ()) if scales is not None), None),
        parameters=_parameters(view, node),
        macs=_macs(view, node),
    )


def _arithmetic(view: View, node: NodeProto) -> tuple[str, str]:
    data, weight = (view.dequantizers(tensor) for tensor in node.input[:2])
    kinds = {view.types.get(q.data) for q in weight or ()}
    integers = next((word for kind, word in NARROW.items() if kind in kinds), "int8")
    if data and weight:
        return integers, ""
    if weight:
        return f"{integers} weights", f"its input {node.input[0]!r} is float"
    return "float", f"its weight {node.input[1]!r} is float" if data else "neither input nor weight is quantized"


def _scales(quantizer: Quantizer | None) -> tuple[float, float] | None:
    if quantizer is None or quantizer.scale is None or not quantizer.scale.size:
        return None
    return float(wide(quantizer.scale).min()), float(wide(quantizer.scale).max())


def _parameters(view: View, node: NodeProto) -> int:
    roots = {view.root(tensor) for tensor in node.input[1:3] if tensor}
    return sum(view.graph.constants[name].size for name in roots if name in view.graph.constants)


def _macs(view: View, node: NodeProto) -> int | None:
    """Count per image: a convolution multiplies each output by its window, a product each output by its inner size."""
    shapes = [view.shape(tensor) for tensor in (node.input[0], node.input[1], node.output[0])]
    if any(shape is None or -1 in shape for shape in shapes):
        return None
    data, weight, out = (tuple(shape or ()) for shape in shapes)
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(data) * math.prod(weight[1:])
    inner = data[0] if node.op_type == "Gemm" and attributes(node).get("transA", 0) else data[-1]
    return int(np.prod(out, dtype=np.int64)) * inner

"""The layers of a graph as a table: shape, arithmetic, why it is float, scales, parameters, multiplications."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from rctk_export.graph import attributes
from rctk_export.lint.view import View, label, wide
from rctk_export.lint.weighted import INTEGER, Weighted, multiplications, weighted_layers

LEARNED = {"BatchNormalization": (1, 2), "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2), "PRelu": (1,)}
"""Inputs of other operators that are trained, too."""
NARROW: dict[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.INT2: 2, TensorProto.UINT2: 2}
"""Bits of the types that NumPy keeps in whole bytes."""


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One node that multiplies by weights.

    Attributes:
        name: Of the node.
        op: Its operator.
        weight_shape: As stored, or as ``(I, O)`` where codes are packed; empty where both factors are computed.
        weight_bits: Width of one code, or of one float value; None where the weight is computed.
        arithmetic: ``int8``, ``int4`` or ``int2`` where Q/DQ surround its inputs or its operator multiplies codes,
            ``int8 dynamic`` where the grid of its input is computed from each batch, ``int4 weights`` where its input
            stays float, or ``float``.
        reason: Why it is not in integers; empty where it is, as are weights in a file that quantizes nothing else.
        weight_scales: Smallest and largest scale of the weight; None where it has none.
        input_scale: Scale of the input; None where it has none.
        parameters: Elements of weight and bias, without padding.
        macs: Multiplications with addition for one image, without padding; None where a shape is unknown.
        padding: Zeros that a target wants beside the network's own values, in words; empty where there are none.
    """

    name: str
    op: str
    weight_shape: tuple[int, ...]
    weight_bits: int | None
    arithmetic: str
    reason: str
    weight_scales: tuple[float, float] | None
    input_scale: float | None
    parameters: int
    macs: int | None
    padding: str = ""


def layer_rows(model: onnx.ModelProto, reasons: Mapping[str, str] | None = None) -> list[LayerRow]:
    """Return a row for every layer, in graph order.

    Args:
        model: Weights in memory; it is not changed.
        reasons: Name of a layer to the reason why it was left in float, where somebody noted it.
    """
    view = View(_one_image(model))
    alone = weights_alone(view)
    return [_row(view, layer, reasons or {}, alone=alone) for layer in weighted_layers(view)]


def weights_alone(view: View) -> bool:
    """Tell whether weights are quantized, and activations are not."""
    return bool(view.formats) and all(q.role != "activation" for q in view.formats)


def parameter_count(model: onnx.ModelProto) -> int:
    """Return the number of trained values: weights and biases of layers, gains and offsets of normalisations.

    Zeros that only pad a layer are no parameters.
    """
    view = View(model)
    sizes: dict[str, int] = {}
    for node in view.graph.nodes:
        slots = LEARNED.get(node.op_type, ())
        roots = {view.root(node.input[slot]) for slot in slots if slot < len(node.input) and node.input[slot]}
        sizes |= {root: view.graph.constants[root].size for root in roots & view.graph.constants.keys()}
    for layer in weighted_layers(view):
        sizes |= _sizes(view, layer)
    return sum(sizes.values())


def _sizes(view: View, layer: Weighted) -> dict[str, int]:
    """Return how many values weight and bias have, by the name of the constant."""
    constants = view.graph.constants
    weight = {layer.weight: math.prod(layer.network_shape)} if layer.weight in constants else {}
    return weight | ({layer.bias: constants[layer.bias].size} if layer.bias in constants else {})


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


def _row(view: View, layer: Weighted, reasons: Mapping[str, str], *, alone: bool) -> LayerRow:
    node = layer.node
    arithmetic, reason = _arithmetic(view, layer)
    if alone and arithmetic.endswith("weights"):
        reason = ""
    weight, given = _scale_of_weight(view, layer), _scale_of_input(view, layer)
    return LayerRow(
        name=label(node),
        op=node.op_type,
        weight_shape=layer.shape,
        weight_bits=_bits(view, layer),
        arithmetic=arithmetic,
        reason=reasons.get(label(node), reason) if reason else "",
        weight_scales=None if weight is None else (float(weight.min()), float(weight.max())),
        input_scale=None if given is None else float(given.reshape(-1)[0]),
        parameters=sum(_sizes(view, layer).values()),
        macs=multiplications(view, layer),
        padding=layer.padding,
    )


def _arithmetic(view: View, layer: Weighted) -> tuple[str, str]:
    node = layer.node
    integers = f"int{_bits(view, layer) or 8}"
    if node.op_type == "MatMulNBits":
        return f"{integers} weights", ""
    if node.op_type in INTEGER:
        maker = view.producer(view.root(node.input[0]))
        dynamic = maker is not None and maker.op_type == "DynamicQuantizeLinear"
        return f"{integers} dynamic" if dynamic or node.op_type == "DynamicQuantizeMatMul" else integers, ""
    data, weight = (view.dequantizers(tensor) for tensor in node.input[:2])
    if data and weight:
        return integers, ""
    if weight:
        return f"{integers} weights", f"its input {node.input[0]!r} is float"
    return "float", f"its weight {node.input[1]!r} is float" if data else "neither input nor weight is quantized"


def _bits(view: View, layer: Weighted) -> int | None:
    """Return the width of what the layer multiplies by: of codes where there are any."""
    if layer.node.op_type == "MatMulNBits":
        return int(attributes(layer.node).get("bits", 4))
    tensor = layer.node.input[layer.slots.weight]
    codes = view.dequantizers(tensor) or ()
    stored = tensor if layer.node.op_type in INTEGER or layer.weight in view.graph.constants else ""
    kind = next((view.types.get(q.data) for q in codes), view.types.get(stored))
    if kind is None:
        return None
    return NARROW.get(kind) or 8 * int(helper.tensor_dtype_to_np_dtype(kind).itemsize)


Scales = npt.NDArray[np.float64]


def _scale_of_weight(view: View, layer: Weighted) -> Scales | None:
    slot = layer.slots.weight_scale
    if slot is not None:
        return _wide(view.graph.constant(layer.node, slot))
    quantizer = view.quantizers.get(layer.node.input[layer.slots.weight])
    return None if quantizer is None else _wide(quantizer.scale)


def _scale_of_input(view: View, layer: Weighted) -> Scales | None:
    slot = layer.slots.input_scale
    if slot is not None:
        return _wide(view.graph.constant(layer.node, slot))
    sources = view.dequantizers(layer.node.input[0]) or ()
    return next((scale for scale in (_wide(q.scale) for q in sources) if scale is not None), None)


def _wide(scale: npt.NDArray[Any] | None) -> Scales | None:
    return None if scale is None or not scale.size else wide(scale)

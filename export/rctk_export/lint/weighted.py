"""The layers of a graph, whatever their operators: where each keeps weight and bias, and which zeros only pad it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
from onnx import NodeProto

from rctk_export.graph import attributes
from rctk_export.lint.view import LAYERS, View, label, wide
from rctk_kernels.errors import GraphError


@dataclass(frozen=True, kw_only=True)
class Slots:
    """At which inputs an operator has what; None for what it does not have.

    Attributes:
        weight: The weight.
        bias: The bias.
        input_scale: Scale of the input.
        weight_scale: Scale of the weight.
    """

    weight: int = 1
    bias: int | None = None
    input_scale: int | None = None
    weight_scale: int | None = None


INTEGER = {
    "ConvInteger": Slots(),
    "MatMulInteger": Slots(),
    "DynamicQuantizeMatMul": Slots(weight_scale=2, bias=4),
    "MatMulIntegerToFloat": Slots(input_scale=2, weight_scale=3, bias=6),
    "MatMulNBits": Slots(weight_scale=2, bias=5),
    "QLinearConv": Slots(input_scale=1, weight=3, weight_scale=4, bias=8),
    "QLinearMatMul": Slots(input_scale=1, weight=3, weight_scale=4),
    "QGemm": Slots(input_scale=1, weight=3, weight_scale=4, bias=6),
}
"""Operators that hold integers themselves, as dynamic quantization and ONNX Runtime's own formats write them."""
SLOTS = {"MatMul": Slots(), **dict.fromkeys(set(LAYERS) - {"MatMul"}, Slots(bias=2)), **INTEGER}
CONVOLUTIONS = {"Conv", "ConvInteger", "QLinearConv"}
_WITH_BIAS = {*LAYERS, "QLinearConv", "QGemm"} - {"MatMul"}
"""Operators that have a bias of their own or none."""
_ON_GRIDS = {"QuantizeLinear", "DequantizeLinear"}
_TO_FLOAT = {"Cast", "Mul"}
"""What stands behind a product of integers before its bias."""


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """One node that multiplies by weights.

    Attributes:
        node: The node; its first input is what it multiplies.
        slots: Of its operator.
        weight: Tensor that the weight is a quantized or reshaped form of.
        shape: Of the weight, as stored; empty where it is computed.
        bias: Likewise of the bias, which may be added behind the node; empty where it has none.
        zero_inputs: How many of its input channels are zeros that a Pad appends, with weights of zero.
        zero_outputs: How many of its outputs have weights of zero and are cut off again.
    """

    node: NodeProto
    slots: Slots
    weight: str
    shape: tuple[int, ...]
    bias: str = ""
    zero_inputs: int = 0
    zero_outputs: int = 0

    @property
    def network_shape(self) -> tuple[int, ...]:
        """Shape of the weight without the zeros that pad it."""
        if self.zero_inputs:
            return (self.shape[0], self.shape[1] - self.zero_inputs, *self.shape[2:])
        return (*self.shape[:-1], self.shape[-1] - self.zero_outputs) if self.shape else ()

    @property
    def padding(self) -> str:
        """The zeros in words; empty where there are none."""
        counts = ((self.zero_inputs, "input channel"), (self.zero_outputs, "output"))
        return " and ".join(f"{count} {word}{'s' * (count > 1)} of zeros" for count, word in counts if count)


def weighted_layers(view: View) -> list[Weighted]:
    """Return all layers of the graph, in graph order."""
    return [_layer(view, node) for node in view.graph.nodes if node.op_type in SLOTS]


def _layer(view: View, node: NodeProto) -> Weighted:
    slots = SLOTS[node.op_type]
    if len(node.input) <= slots.weight:
        raise GraphError(f"node {label(node)!r} has no weight among its {len(node.input)} inputs; export it again")
    weight = view.root(node.input[slots.weight])
    stored = view.graph.constants.get(weight)
    shape = () if stored is None else stored.shape
    if node.op_type == "MatMulNBits":  # which packs its codes
        settings = attributes(node)
        shape = (settings.get("K", 0), settings.get("N", 0))
    layer = Weighted(
        node=node,
        slots=slots,
        weight=weight,
        shape=shape,
        zero_inputs=0 if stored is None else _zero_inputs(view, node, stored),
        zero_outputs=0 if stored is None else _zero_outputs(view, node, stored),
    )
    return replace(layer, bias=_bias(view, layer))


def _bias(view: View, layer: Weighted) -> str:
    """Return the bias at the node's own slot, or what is added to each output of a bare product."""
    node, slot = layer.node, layer.slots.bias
    if slot is not None and slot < len(node.input) and node.input[slot]:
        return view.root(node.input[slot])
    if node.op_type in _WITH_BIAS:
        return ""
    passed = _ON_GRIDS | {"Slice"} | (_TO_FLOAT if node.op_type in INTEGER else set())
    tensor, user = node.output[0], view.only_user(node.output[0])
    while user is not None and user.op_type in passed:
        tensor = user.output[0]
        user = view.only_user(tensor)
    if user is None or user.op_type not in {"Add", "Sub"}:
        return ""
    root = view.root(next((name for name in user.input if name != tensor), tensor))
    value = view.graph.constants.get(root)
    outputs = layer.network_shape[0 if node.op_type in CONVOLUTIONS else -1] if layer.shape else 0
    return root if value is not None and value.size == max(value.shape, default=0) == outputs else ""


def _zero_inputs(view: View, node: NodeProto, weight: npt.NDArray[Any]) -> int:
    """Follow the images back through grids and normalisation to a Pad that appends channels."""
    if node.op_type not in CONVOLUTIONS or weight.ndim < 3:
        return 0
    maker = view.producer(node.input[0])
    while maker is not None and maker.op_type != "Pad":
        parts = [name for name in maker.input if name and name not in view.graph.constants]
        if maker.op_type not in {*_ON_GRIDS, "Add", "Sub", "Mul", "Div"} or len(parts) != 1:
            return 0
        maker = view.producer(parts[0])
    pads = None if maker is None else view.graph.constant(maker, 1)
    if pads is None or pads.size != 2 * weight.ndim or len(maker.input if maker else ()) > 3:
        return 0
    count = int(pads[weight.ndim + 1])
    return count if 0 < count < weight.shape[1] and not wide(weight[:, -count:]).any() else 0


def _zero_outputs(view: View, node: NodeProto, weight: npt.NDArray[Any]) -> int:
    """Look for a Slice that keeps the first outputs of a matrix product ``(I, O)``."""
    user = view.only_user(node.output[0])
    if node.op_type != "MatMul" or weight.ndim != 2 or user is None or user.op_type != "Slice":
        return 0
    bounds = [view.graph.constant(user, slot) for slot in (1, 2, 3)]
    if len(user.input) > 4 or any(bound is None or bound.shape != (1,) for bound in bounds):
        return 0
    start, end, axis = (int(bound[0]) for bound in bounds if bound is not None)
    count = weight.shape[1] - end
    kept = start == 0 and axis in {-1, len(view.shape(node.output[0]) or ()) - 1}
    return count if kept and 0 < count < weight.shape[1] and not wide(weight[:, -count:]).any() else 0


def multiplications(view: View, layer: Weighted) -> int | None:
    """Count multiplications with addition of the network, for the batch that is known; None where a shape is not.

    A convolution multiplies each output by its window, a product each row of its input by its weight.
    """
    node = layer.node
    data, out = (view.shape(tensor) for tensor in (node.input[0], node.output[0]))
    weight = layer.network_shape or view.shape(node.input[layer.slots.weight])
    turned = node.op_type in {"Gemm", "QGemm"} and attributes(node).get("transA", 0)
    if node.op_type in CONVOLUTIONS:
        return _product(out, None if weight is None else weight[1:])
    if node.op_type == "ConvTranspose":
        return _product(data, None if weight is None else weight[1:])
    if len(layer.shape) == 2 and not turned:
        return _product(None if data is None else data[:-1], weight)
    return _product(out, None if data is None else data[:1] if turned else data[-1:])


def _product(*shapes: tuple[int, ...] | None) -> int | None:
    sizes = [size for shape in shapes for size in ((-1,) if shape is None else shape)]
    return None if -1 in sizes else math.prod(sizes)

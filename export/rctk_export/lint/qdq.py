"""Rules about Q and DQ nodes themselves, whatever the target: scales, zero points, axes, pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto

from rctk_export.graph import attributes
from rctk_export.lint.rule import Place, Rule
from rctk_export.lint.view import Quantizer, View, label, scale_pairs, wide

NARROW_TYPES = {"int4", "uint4", "float4_e2m1fn"}


def is_narrow(quantizer: Quantizer) -> bool:
    """Return whether the codes have 4 bits; these come in blocks and only for linear weights."""
    return quantizer.zero is not None and str(quantizer.zero.dtype) in NARROW_TYPES


def scale_constant(view: View) -> Iterator[Place]:
    """Scale and zero point are constants with at least one element."""
    for q in view.quantizers.values():
        if q.scale is None:
            yield Place(label(q.node), f"the scale {q.node.input[1]!r} is computed, expected a constant")
        elif q.scale.size == 0:
            yield Place(label(q.node), f"the scale {q.node.input[1]!r} is empty")
        if q.zero is None and len(q.node.input) > 2 and q.node.input[2]:
            yield Place(label(q.node), f"the zero point {q.node.input[2]!r} is computed, expected a constant")


def scale_positive(view: View) -> Iterator[Place]:
    """Every scale is finite and above 0."""
    for q in view.formats:
        flat = wide(np.zeros(0) if q.scale is None else q.scale).reshape(-1)
        bad = np.flatnonzero(~(np.isfinite(flat) & (flat > 0)))
        if len(bad):
            yield Place(label(q.node), f"scale {flat[bad[0]]:g} at index {bad[0]} ({len(bad)} of {flat.size} bad)")


def zero_point_count(view: View) -> Iterator[Place]:
    """A zero point has as many elements as its scale."""
    for q, scale in scale_pairs(view):
        if q.zero is not None and q.zero.size != scale.size:
            yield Place(label(q.node), f"{q.zero.size} zero points for {scale.size} scales")


def axis_explicit(view: View) -> Iterator[Place]:
    """A vector scale says its axis; the default changed between opsets."""
    for q, scale in scale_pairs(view):
        if scale.size > 1 and scale.ndim == 1 and q.axis is None:
            yield Place(label(q.node), f"{scale.size} scales and no axis written")


def axis_length(view: View) -> Iterator[Place]:
    """A vector scale has one element per channel of its axis."""
    for q, scale in scale_pairs(view):
        shape, axis = view.shape(q.data), 1 if q.axis is None else q.axis
        if scale.size <= 1 or scale.ndim != 1 or shape is None:
            continue
        if not -len(shape) <= axis < len(shape):
            yield Place(label(q.node), f"axis {axis} of a tensor of shape {list(shape)}")
        elif shape[axis] not in {-1, scale.size}:
            yield Place(label(q.node), f"{scale.size} scales for {shape[axis]} channels on axis {axis}")


def activation_per_tensor(view: View) -> Iterator[Place]:
    """An activation has one scale."""
    for q, scale in scale_pairs(view):
        if q.role == "activation" and scale.size > 1:
            yield Place(label(q.node), f"activation {q.data!r} has {scale.size} scales, expected 1")


def weight_axis(view: View) -> Iterator[Place]:
    """Per-channel weights are scaled along their output channels."""
    for layer in view.layers:
        q = view.quantizers.get(layer.input[1])
        if q is None or q.role != "weight" or q.scale is None or q.scale.size <= 1 or q.scale.ndim != 1:
            continue
        shape = view.shape(q.data)
        if not shape or q.axis is None:
            continue
        expected = output_axis(layer, len(shape))
        if q.axis % len(shape) != expected:
            yield Place(label(q.node), f"weight of {label(layer)!r} is scaled on axis {q.axis}, expected {expected}")


def output_axis(layer: NodeProto, rank: int) -> int:
    """Return the axis of a layer's weight along which its outputs lie."""
    if layer.op_type == "Gemm":
        return 0 if attributes(layer).get("transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1}.get(layer.op_type, rank - 1)


def pair_agrees(view: View) -> Iterator[Place]:
    """A DQ undoes the very Q in front of it."""
    for dq in view.quantizers.values():
        q = view.quantizers.get(dq.data)
        if dq.quantizes or q is None or not q.quantizes or q.scale is None or dq.scale is None:
            continue
        same_scale = np.array_equal(wide(q.scale).reshape(-1), wide(dq.scale).reshape(-1))
        same_zero = q.zero is None or dq.zero is None or np.array_equal(wide(q.zero), wide(dq.zero))
        if not same_scale or not same_zero:
            yield Place(label(dq.node), f"its scale or zero point differs from that of {label(q.node)!r}")


def no_chain(view: View) -> Iterator[Place]:
    """No tensor is quantized twice in a row."""
    for q in view.quantizers.values():
        before = view.quantizers.get(q.data)
        if q.quantizes and before is not None and not before.quantizes:
            yield Place(label(q.node), f"quantizes what {label(before.node)!r} has just dequantized")


def no_block(view: View) -> Iterator[Place]:
    """8-bit tensors are scaled per tensor or per channel."""
    for q, scale in scale_pairs(view):
        if not is_narrow(q) and (scale.ndim > 1 or attributes(q.node).get("block_size", 0)):
            yield Place(label(q.node), f"a block scale of shape {list(scale.shape)}")


def fp16_opset(view: View) -> Iterator[Place]:
    """Half-precision scales exist from opset 19."""
    for q in view.quantizers.values():
        if q.scale is not None and q.scale.dtype == np.float16 and view.opset < 19:
            yield Place(label(q.node), f"a float16 scale in opset {view.opset}")


def output_dtype(view: View) -> Iterator[Place]:
    """The written output type of a Q is that of its zero point."""
    for q in view.quantizers.values():
        declared = attributes(q.node).get("output_dtype", 0) if q.quantizes else 0
        actual = view.types.get(q.node.input[2], 0) if len(q.node.input) > 2 and q.node.input[2] else 0
        if declared and actual and declared != actual:
            yield Place(label(q.node), f"output_dtype {declared} and a zero point of type {actual}")


def weight_code(view: View) -> Iterator[Place]:
    """Weights use the symmetric codes -127..127."""
    for q, scale in scale_pairs(view):
        data = view.graph.constants.get(q.data)
        if q.role != "weight" or data is None or is_narrow(q):
            continue
        low = _lowest_code(q, wide(data), scale)
        if low is not None and low < -127:
            yield Place(label(q.node), f"weight {q.data!r} uses code {low:g}")


def _lowest_code(
    q: Quantizer,
    data: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    scale: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> float | None:
    if not data.size:
        return None
    if not q.quantizes:
        return float(data.min())
    if scale.size > 1:
        axis = 1 if q.axis is None else q.axis
        if scale.ndim != 1 or not -data.ndim <= axis < data.ndim or data.shape[axis] != scale.size:
            return None  # axis-length reports it
        shape = [1] * data.ndim
        shape[axis] = -1
        scale = scale.reshape(shape)
    if not (scale > 0).all():
        return None  # scale-positive reports it
    return float(np.rint(data / scale).min())


def float_layers(view: View) -> Iterator[Place]:
    """Layers are quantized; one that stays float is named."""
    for layer in view.layers:
        if not any(view.dequantizers(tensor) for tensor in layer.input[:2]):
            yield Place(label(layer), f"{layer.op_type} runs in float")


def control_flow(view: View) -> Iterator[Place]:
    """Branches and loops are not looked into."""
    for node in view.graph.nodes:
        if node.op_type in {"If", "Loop", "Scan"}:
            yield Place(label(node), f"the graphs inside {node.op_type} are not checked")


RULES = (
    Rule(id="scale-constant", check=scale_constant, remedy="store scale and zero point as initializers"),
    Rule(
        id="scale-positive",
        check=scale_positive,
        remedy="give an all-zero channel a small positive scale and calibrate again",
    ),
    Rule(id="zero-point-count", check=zero_point_count, remedy="write one zero point per scale"),
    Rule(id="axis-explicit", check=axis_explicit, remedy="write the axis attribute"),
    Rule(id="axis-length", check=axis_length, remedy="write one scale per channel of the axis"),
    Rule(
        id="activation-per-tensor", check=activation_per_tensor, remedy="calibrate one scale for the whole activation"
    ),
    Rule(id="weight-axis", check=weight_axis, remedy="choose one scale per output channel"),
    Rule(id="pair-agrees", check=pair_agrees, remedy="use one scale and zero point for the pair"),
    Rule(id="no-chain", check=no_chain, remedy="drop one of the two pairs, or give both sides one scale"),
    Rule(id="no-block", check=no_block, remedy="use one scale per tensor or per output channel"),
    Rule(id="fp16-opset", check=fp16_opset, remedy="store float32 scales or export with opset 19 or newer"),
    Rule(id="output-dtype", check=output_dtype, remedy="remove output_dtype or make the two agree"),
    Rule(
        id="weight-code",
        check=weight_code,
        severity="warning",
        remedy="choose the scale as max|w| / 127, so that weights are symmetric",
    ),
    Rule(
        id="float-layer",
        check=float_layers,
        severity="warning",
        remedy="quantize its inputs, or accept it as mixed precision",
    ),
    Rule(id="control-flow", check=control_flow, severity="warning", remedy="export the model without branches"),
)

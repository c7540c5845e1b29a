"""Rules of ONNX Runtime's int8 kernels on x86: what must hold so that every layer is fused and runs fast.

Measured with ONNX Runtime 1.31 on AVX512-VNNI: int8 activations run many times slower than uint8, and a layer that is
not surrounded by Q/DQ as below stays in float between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from rctk_export.graph import attributes
from rctk_export.lint import qdq
from rctk_export.lint.rule import Place, Rule
from rctk_export.lint.tensorrt import half_quantized
from rctk_export.lint.view import Quantizer, View, codes_text, label, wide

_PASSED = {"MaxPool", "Transpose", "Reshape", "Squeeze", "Unsqueeze"}
"""Operators through which ONNX Runtime moves a DQ towards the layer; Flatten is not among them."""


def activation_uint8(view: View) -> Iterator[Place]:
    """Activations are uint8."""
    for q in view.formats:
        if q.role == "activation" and q.zero is not None and str(q.zero.dtype) != "uint8":
            yield Place(label(q.node), f"activation {q.data!r} is {q.zero.dtype}")


def weight_int8(view: View) -> Iterator[Place]:
    """Weights are int8 with zero point 0."""
    for q in view.formats:
        if q.role != "weight":
            continue
        if q.zero is not None and (str(q.zero.dtype) != "int8" or wide(q.zero).any()):
            yield Place(label(q.node), f"weight {q.data!r} is {q.zero.dtype} with zero points {codes_text(q.zero)}")
        elif q.zero is None and q.quantizes:
            yield Place(label(q.node), f"weight {q.data!r} has no zero point, which means uint8")


def bias_int32(view: View) -> Iterator[Place]:
    """The bias of a quantized layer is int32 with the scale of its sums, input scale times weight scale."""
    for layer in view.layers:
        if layer.op_type == "MatMul" or len(layer.input) < 3 or not layer.input[2]:
            continue
        sources = [_source(view, tensor) for tensor in layer.input[:2]]
        data, weight = sources
        if data is None or weight is None or data.scale is None or weight.scale is None or data.scale.size != 1:
            continue  # another rule reports it
        bias = view.quantizers.get(layer.input[2])
        if bias is None or bias.role != "bias" or bias.scale is None:
            yield Place(label(layer), f"its bias {layer.input[2]!r} is not int32")
        elif bias.zero is not None and wide(bias.zero).any():
            yield Place(label(bias.node), "the bias has a zero point")
        elif not _is_product(wide(bias.scale), wide(data.scale) * wide(weight.scale)):
            yield Place(label(bias.node), f"the bias scale is not input scale x weight scale of {label(layer)!r}")


def _is_product(
    scale: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    expected: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> bool:
    if scale.size not in {1, expected.size}:
        return False
    return bool(np.allclose(scale.reshape(-1), expected.reshape(-1), rtol=1e-6, atol=0))  # two float32 roundings


def surrounded(view: View) -> Iterator[Place]:
    """A layer with quantized inputs reads them straight from DQ; a convolution is also followed by Q."""
    yield from read_from_dq(view)
    for layer in quantized_convolutions(view):
        problem = open_end(view, layer)
        if problem:
            yield Place(label(layer), problem)


def read_from_dq(view: View) -> Iterator[Place]:
    """A layer with quantized inputs reads them straight from DQ."""
    for layer in (layer for layer in view.layers if _quantized(view, layer)):
        for tensor in layer.input[:2]:
            if _source(view, tensor) is None:
                maker = view.producer(tensor)
                yield Place(label(layer), f"{maker.op_type if maker is not None else 'a graph input'} stands before it")


def quantized_convolutions(view: View) -> list[NodeProto]:
    """Return the convolutions whose inputs are quantized."""
    return [n for n in view.layers if n.op_type in {"Conv", "ConvTranspose"} and _quantized(view, n)]


def _quantized(view: View, layer: NodeProto) -> bool:
    return all(view.dequantizers(tensor) for tensor in layer.input[:2])


def _source(view: View, tensor: str) -> Quantizer | None:
    """Return the DQ that the runtime moves next to the reader of ``tensor``."""
    maker = view.producer(tensor)
    while maker is not None and maker.op_type in _PASSED:
        tensor = maker.input[0]
        maker = view.producer(tensor)
    q = view.quantizers.get(tensor)
    return q if q is not None and not q.quantizes else None


def open_end(view: View, layer: NodeProto) -> str:
    """Return why ``layer`` is not followed by a Q that takes in its activation function; empty if it is."""
    user = view.only_user(layer.output[0])
    between = user if user is not None and user.op_type in {"Relu", "Clip"} else None
    if between is not None:
        user = view.only_user(between.output[0])
        if between.op_type == "Relu" and user is not None and user.op_type == "Clip":
            between, user = user, view.only_user(user.output[0])
    if user is None or user.op_type != "QuantizeLinear":
        return "its output is not quantized alone"
    q = view.quantizers[user.output[0]]
    if between is not None and not _absorbs(view, q, between) and not narrow_bits(view, q):
        return f"{between.op_type} does more than the clamp of {label(user)!r}, so it stays between layer and Q"
    return ""


def _absorbs(view: View, q: Quantizer, node: NodeProto) -> bool:
    """Return whether every value that ``node`` would clip is clipped by ``q`` anyway."""
    zero = 0.0 if q.zero is None else _number(q.zero)
    scale = None if q.scale is None else _number(q.scale)
    if scale is None or zero is None or not scale > 0:
        return False  # scale-positive reports it
    low_code, high_code = (-128, 127) if q.zero is not None and str(q.zero.dtype) == "int8" else (0, 255)
    low, high = (0.0, np.inf) if node.op_type == "Relu" else clip_bounds(view, node)
    return bool(np.rint(low / scale) + zero <= low_code and np.rint(high / scale) + zero >= high_code)


def narrow_bits(view: View, q: Quantizer) -> int | None:
    """Return the width of codes that a Clip in front of ``q`` holds below 8 bits; None where there is no such Clip.

    Its bounds are codes, and there are ``2**bits`` of them, or one less where they lie symmetric around 0.
    """
    node = view.producer(q.data) if q.quantizes else None
    scale = None if q.scale is None else _number(q.scale)
    if node is None or node.op_type != "Clip" or scale is None or not scale > 0:
        return None
    low, high = (bound / scale for bound in clip_bounds(view, node))
    if not (np.isfinite([low, high]).all() and np.allclose([low, high], np.rint([low, high]), rtol=0, atol=1e-3)):
        return None
    codes = round(high - low) + 1
    return next((bits for bits in range(1, 8) if codes in {2**bits, 2**bits - 1}), None)


def narrow_codes(view: View) -> Iterator[Place]:
    """Activation codes use all 8 bits."""
    for q in view.formats:
        bits = narrow_bits(view, q) if q.role == "activation" else None
        if bits is not None:
            yield Place(label(q.node), f"a Clip holds {q.data!r} to {bits} bits")


def _number(array: npt.NDArray[Any]) -> float | None:
    return float(wide(array).reshape(-1)[0]) if array.size == 1 else None


def clip_bounds(view: View, node: NodeProto) -> tuple[float, float]:
    """Return the bounds of a Clip, NaN where they are computed."""
    settings = attributes(node)  # where opsets before 11 have them
    bounds = [settings.get("min", -np.inf), settings.get("max", np.inf)]
    for slot in (1, 2):
        if len(node.input) > slot and node.input[slot]:
            value = view.graph.constant(node, slot)
            number = None if value is None else _number(value)
            bounds[slot - 1] = np.nan if number is None else number
    return bounds[0], bounds[1]


def identity(view: View) -> Iterator[Place]:
    """No Identity stands between Q/DQ and a layer."""
    for node in view.graph.nodes:
        maker = view.producer(node.input[0]) if node.op_type == "Identity" else None
        ops = {"QuantizeLinear", "DequantizeLinear", "Conv", "ConvTranspose", "Gemm", "MatMul"}
        near = {r.node.op_type for r in view.users(node.output[0])} | {maker.op_type if maker is not None else ""}
        if node.op_type == "Identity" and near & ops:
            yield Place(label(node), f"an Identity on {node.input[0]!r}")


RULES = (
    *qdq.RULES,
    Rule(id="activation-uint8", check=activation_uint8, remedy="use uint8 activations; int8 ones run slowly on x86"),
    Rule(id="weight-int8", check=weight_int8, remedy="use int8 weights with zero point 0"),
    Rule(
        id="bias-int32", check=bias_int32, remedy="store the bias as int32 with scale input x weight and zero point 0"
    ),
    Rule(id="half-quantized", check=half_quantized, remedy="quantize both inputs or neither"),
    Rule(id="surrounded", check=surrounded, remedy="put DQ directly before and Q directly after the layer"),
    Rule(id="identity", check=identity, remedy="remove it"),
    Rule(
        id="narrow-codes",
        check=narrow_codes,
        severity="warning",
        remedy="accept that ONNX Runtime computes the layer in front of it in float; only 8 bits are fast",
    ),
)

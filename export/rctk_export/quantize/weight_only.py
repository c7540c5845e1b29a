"""Integer weights for linear layers whose activations have no grid: 8, 4 or 2 bits, stored as such.

What runs fast: ONNX Runtime turns ``DequantizeLinear`` and the matrix product behind it into ``MatMulNBits``, which
reads the codes straight from memory and rounds its inputs to int8 on the way, 32 at a time (its accuracy level 4). That
pays for large layers and small batches; 2 bits are no faster than 4. A product that it fuses with its bias and a ReLU
first would be dequantized on every call, which costs many times the float layer: so the bias is subtracted with the
other sign, which nothing fuses. :func:`rctk_export.lint.fusion.fusion_report` tells what became of a file. Convolutions
have no such kernel and stay float.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rctk_export.graph import Graph, attributes
from rctk_export.quantize.formats import Formats, Weight
from rctk_export.quantize.grid import weight_codes, weight_scales
from rctk_kernels.errors import OptionError

TYPES = {8: TensorProto.INT8, 4: TensorProto.INT4, 2: TensorProto.INT2}
OPSETS = {8: 21, 4: 21, 2: 25}
"""Where each type exists from."""
PACK = 4
"""Codes of 2 bits in a byte. ONNX Runtime 1.31 misreads a 2-bit weight whose outputs do not fill their last byte."""


def linear_layers(graph: Graph) -> list[onnx.NodeProto]:
    """Return the Gemm nodes whose weight can be stored alone: constant, transposed, without factors."""
    found = []
    for node in graph.nodes:
        settings = attributes(node)
        plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
        stored = graph.constant(node, 1) is not None and bool(settings.get("transB", 0))
        stored &= graph.constant(node, 2) is not None or len(node.input) < 3
        if node.op_type == "Gemm" and plain and stored:
            found.append(node)
    return found


def write_weight_only(model: onnx.ModelProto, formats: Formats, keep_float: tuple[str, ...] = ()) -> onnx.ModelProto:
    """Return a copy of a float graph whose linear layers hold integer weights, one scale per output.

    Args:
        model: A simplified float graph.
        formats: Widths of weights, 8, 4 or 2, and codes that are decided already.
        keep_float: Layers to leave as they are.

    Raises:
        OptionError: There is no linear layer, or a width that no runtime reads.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph, widths = Graph(copy), dict[str, int]()
    for node in linear_layers(graph):
        if node.name in keep_float:
            continue
        bits = formats.of_layer(node.name)
        if bits not in TYPES:
            raise OptionError(
                f"{node.name}: weights alone are stored in 8, 4 or 2 bits, got {bits}; no runtime reads it"
            )
        widths[_store(graph, node, formats, bits)] = bits
    if not widths:
        raise OptionError("this model has no linear layer whose weights could be stored alone; use static int8")
    made = graph.finish()
    _retype(made, widths)
    newest = max(OPSETS[bits] for bits in widths.values())
    for opset in made.opset_import:
        opset.version = max(opset.version, newest) if opset.domain in {"", "ai.onnx"} else opset.version
    made.ir_version = max(made.ir_version, helper.find_min_ir_version_for(list(made.opset_import)))
    return made


def _store(graph: Graph, node: onnx.NodeProto, formats: Formats, bits: int) -> str:
    """Replace Gemm by DequantizeLinear, MatMul and Sub; return the name of the codes."""
    weight, given = graph.constant(node, 1), formats.weights.get(node.name)
    assert weight is not None
    given = given or Weight(scales=weight_scales(weight, 0, bits))
    codes = weight_codes(weight, given.scales, 0, bits) if given.codes is None else given.codes
    outputs, name = len(weight), f"{node.name}.weight"
    scales = np.broadcast_to(given.scales, (outputs,)).copy()
    missing = -outputs % PACK if bits == 2 else 0
    codes, scales = np.pad(codes, ((0, missing), (0, 0))), np.pad(scales, (0, missing), constant_values=1)
    stored = graph.add_constant(f"{name}.codes", np.ascontiguousarray(codes.T))  # (I, O), as MatMul wants it
    scale = graph.add_constant(f"{name}.scale", scales)
    out = graph.fresh(f"{name}.dq")
    bias = graph.constant(node, 2)
    product = node.output[0] if bias is None else graph.fresh(f"{node.name}.product")
    full = graph.fresh(f"{node.name}.full") if missing else product
    parts = [
        helper.make_node("DequantizeLinear", [stored, scale], [out], name=f"{name}.dequantize", axis=1),
        helper.make_node("MatMul", [node.input[0], out], [full], name=node.name),
    ]
    if missing:
        bounds = [graph.add_constant(f"{name}.{end}", np.array([i])) for end, i in _slice(outputs)]
        parts.append(helper.make_node("Slice", [full, *bounds], [product], name=f"{node.name}.slice"))
    if bias is not None:
        other_sign = graph.add_constant(f"{node.name}.minus_bias", -bias)
        parts.append(helper.make_node("Sub", [product, other_sign], [node.output[0]], name=f"{node.name}.bias"))
    graph.insert_before(node, parts)
    graph.remove(node)
    return stored


def _slice(outputs: int) -> tuple[tuple[str, int], ...]:
    """Return what Slice needs to keep the first ``outputs`` columns."""
    return ("start", 0), ("end", outputs), ("axis", 1)


def _retype(model: onnx.ModelProto, widths: Mapping[str, int]) -> None:
    """Store codes in the type that their width asks for."""
    for tensor in model.graph.initializer:
        kind = TYPES[widths.get(tensor.name, 8)]
        if kind != TensorProto.INT8:
            codes = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
            tensor.CopyFrom(numpy_helper.from_array(codes, tensor.name))  # packed; make_tensor takes twice the bytes

"""Integer weights for linear layers whose activations stay float: 8 or 4 bits, stored as such.

What runs fast: ONNX Runtime turns ``DequantizeLinear`` and the matrix product behind it into ``MatMulNBits``, which
reads the codes straight from memory; that pays for large layers and small batches. Where it does not (a product that is
fused with its bias and ReLU first), the weight is dequantized and multiplied in float: the file is smaller, the time is
not. :func:`fused` asks. Convolutions have no such kernel and stay float.
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

TYPES = {8: TensorProto.INT8, 4: TensorProto.INT4}
OPSET = 21
"""4-bit types exist from here on."""


def linear_layers(graph: Graph) -> list[onnx.NodeProto]:
    """Return the Gemm nodes whose weight can be stored alone: constant, transposed, without factors."""
    found = []
    for node in graph.nodes:
        settings = attributes(node)
        plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
        stored = graph.constant(node, 1) is not None and bool(settings.get("transB", 0))
        if node.op_type == "Gemm" and plain and stored:
            found.append(node)
    return found


def write_weight_only(model: onnx.ModelProto, formats: Formats, keep_float: tuple[str, ...] = ()) -> onnx.ModelProto:
    """Return a copy of a float graph whose linear layers hold integer weights, one scale per output.

    Args:
        model: A simplified float graph.
        formats: Widths of weights, 8 or 4, and codes that are decided already.
        keep_float: Layers to leave as they are.

    Raises:
        OptionError: There is no linear layer, or a width that no runtime reads.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph, types = Graph(copy), dict[str, int]()
    for node in linear_layers(graph):
        if node.name in keep_float:
            continue
        bits = formats.of_layer(node.name)
        if bits not in TYPES:
            raise OptionError(f"{node.name}: weights alone are stored in 8 or 4 bits, got {bits}; no runtime reads it")
        types[_store(graph, node, formats, bits)] = TYPES[bits]
    if not types:
        raise OptionError("this model has no linear layer whose weights could be stored alone; use static int8")
    made = graph.finish()
    _retype(made, types)
    for opset in made.opset_import:
        opset.version = max(opset.version, OPSET) if opset.domain in {"", "ai.onnx"} else opset.version
    return made


def _store(graph: Graph, node: onnx.NodeProto, formats: Formats, bits: int) -> str:
    """Replace Gemm by DequantizeLinear, MatMul and Add; return the name of the codes."""
    weight, given = graph.constant(node, 1), formats.weights.get(node.name)
    assert weight is not None
    given = given or Weight(scales=weight_scales(weight, 0, bits))
    codes = weight_codes(weight, given.scales, 0, bits) if given.codes is None else given.codes
    name = f"{node.name}.weight"
    stored = graph.add_constant(f"{name}.codes", np.ascontiguousarray(codes.T))  # (I, O), as MatMul wants it
    scale = graph.add_constant(f"{name}.scale", np.broadcast_to(given.scales, (len(weight),)).copy())
    out = graph.fresh(f"{name}.dq")
    bias = node.input[2] if len(node.input) > 2 else ""
    product = graph.fresh(f"{node.name}.product") if bias else node.output[0]
    parts = [
        helper.make_node("DequantizeLinear", [stored, scale], [out], name=f"{name}.dequantize", axis=1),
        helper.make_node("MatMul", [node.input[0], out], [product], name=node.name),
    ]
    if bias:
        parts.append(helper.make_node("Add", [product, bias], [node.output[0]], name=f"{node.name}.add"))
    graph.insert_before(node, parts)
    graph.remove(node)
    return stored


def _retype(model: onnx.ModelProto, types: Mapping[str, int]) -> None:
    """Store codes in the type that their width asks for."""
    for tensor in model.graph.initializer:
        if types.get(tensor.name) == TensorProto.INT4:
            codes = numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.INT4, codes.shape, codes.reshape(-1)))

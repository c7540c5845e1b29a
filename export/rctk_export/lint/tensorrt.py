"""Rules of TensorRT's explicit quantization, and of its CPU mirror.

Sources: the checks of TensorRT's ONNX parser (onnx-tensorrt 10.1 and 10.15) for what is refused outright; the placement
advice of the TensorRT developer guide for what only breaks a fusion.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto, TensorProto

from rctk_export.graph import attributes
from rctk_export.lint import qdq
from rctk_export.lint.rule import Place, Rule
from rctk_export.lint.view import View, codes_text, label, scale_pairs, wide

CODE_TYPES = {"int8", "int4", "float8_e4m3fn"}
_INTEGER = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def zero_point_int8(view: View) -> Iterator[Place]:
    """Zero points are int8; a Q without one makes uint8."""
    for q in view.formats:
        if q.zero is not None and str(q.zero.dtype) not in CODE_TYPES and q.role != "bias":
            yield Place(label(q.node), f"a zero point of type {q.zero.dtype}")
        typed = attributes(q.node).get("output_dtype", 0) == TensorProto.INT8
        if q.quantizes and q.zero is None and not typed:
            yield Place(label(q.node), "no zero point, which means uint8")


def zero_point_zero(view: View) -> Iterator[Place]:
    """All zero points are 0."""
    for q in view.formats:
        if q.zero is not None and wide(q.zero).any():
            yield Place(label(q.node), f"zero points {codes_text(q.zero)}")


def mirror_zero_point(view: View) -> Iterator[Place]:
    """Activations are uint8 around 128, weights int8 around 0."""
    for q in view.formats:
        kind, value = ("uint8", 128) if q.role == "activation" else ("int8", 0)
        if q.role == "bias" or (q.role == "weight" and q.zero is None and not q.quantizes):
            continue
        if q.zero is None:
            yield Place(label(q.node), f"no zero point, expected {kind} {value}")
        elif str(q.zero.dtype) != kind or (wide(q.zero) != value).any():
            yield Place(label(q.node), f"zero points {q.zero.dtype} {codes_text(q.zero)}, expected {kind} {value}")


def int32_dequantize(view: View) -> Iterator[Place]:
    """Biases stay float."""
    for q in view.quantizers.values():
        if view.types.get(q.data) == TensorProto.INT32:
            yield Place(label(q.node), f"dequantizes the int32 tensor {q.data!r}")


def uint8_inside(view: View) -> Iterator[Place]:
    """Tensors of type uint8 exist only as inputs and outputs."""
    allowed = {*view.graph.inputs, *view.graph.outputs}
    allowed |= {name for q in view.quantizers.values() for name in q.node.input[2:]}  # zero-point-int8 reports these
    for name, kind in view.types.items():
        if kind == TensorProto.UINT8 and name not in allowed:
            maker = view.producer(name)
            yield Place(label(maker) if maker is not None else name, f"tensor {name!r} is uint8")


def integer_operator(view: View) -> Iterator[Place]:
    """Int8 arithmetic is written as Q/DQ around float operators."""
    for node in view.graph.nodes:
        if node.op_type in _INTEGER or node.op_type.startswith("QLinear") or node.op_type == "QGemm":
            yield Place(label(node), f"the operator {node.op_type}")


def opset_range(view: View) -> Iterator[Place]:
    """The opset is one that every supported parser reads."""
    vector = any(scale.size > 1 for _, scale in scale_pairs(view))
    floor = 13 if vector else 10
    if view.opset < floor:
        yield Place("opset_import", f"opset {view.opset}, expected at least {floor}")


def opset_new(view: View) -> Iterator[Place]:
    """TensorRT 10.0 reads opsets up to 20."""
    if view.opset > 20:
        yield Place("opset_import", f"opset {view.opset}")


def unused_domain(view: View) -> Iterator[Place]:
    """Every imported operator domain is used."""
    used = {node.domain for node in view.model.graph.node} | {f.domain for f in view.model.functions}
    for opset in view.model.opset_import:
        if opset.domain not in {"", "ai.onnx"} and opset.domain not in used:
            yield Place("opset_import", f"the domain {opset.domain!r} is imported and not used")


def foreign_operator(view: View) -> Iterator[Place]:
    """Operators come from ONNX or TensorRT."""
    own = {f.domain for f in view.model.functions}
    for node in view.graph.nodes:
        if node.domain not in {"", "ai.onnx", "trt", "trt.plugins", *own}:
            yield Place(label(node), f"the operator {node.domain}::{node.op_type}")


def double(view: View) -> Iterator[Place]:
    """Nothing is computed in double precision."""
    for name, kind in view.types.items():
        maker = view.producer(name)
        if kind == TensorProto.DOUBLE and maker is not None:
            yield Place(label(maker), f"tensor {name!r} is float64 and will be narrowed")


def half_quantized(view: View) -> Iterator[Place]:
    """A layer has both of its inputs quantized or neither; 4-bit weights go with float activations too."""
    for layer in view.layers:
        data, weight = (view.dequantizers(tensor) for tensor in layer.input[:2])
        if bool(data) == bool(weight) or any(qdq.is_narrow(q) for q in weight or ()):
            continue
        index, word = (1, "input 0") if data else (0, "input 1")
        yield Place(label(layer), f"only its {word} is quantized; {layer.input[index]!r} is float")


def int4_form(view: View) -> Iterator[Place]:
    """4-bit codes are weights of linear layers, in pairs, from opset 21, in blocks along one axis."""
    for q, scale in scale_pairs(view):
        if not qdq.is_narrow(q):
            continue
        shape = view.shape(q.data)
        layers = {reader.node.op_type for reader in view.users(q.node.output[0])} & _WEIGHTED
        if view.opset < 21:
            yield Place(label(q.node), f"4-bit codes in opset {view.opset}, expected 21")
        if q.role != "weight" or layers & {"Conv", "ConvTranspose"}:
            yield Place(label(q.node), f"4-bit codes on {q.data!r}, which is no linear weight")
        if shape and shape[-1] % 2 and shape[-1] > 0:
            yield Place(label(q.node), f"an odd last size in shape {list(shape)}")
        if shape and scale.ndim > 1:
            fits = len(shape) == scale.ndim and all(
                n > 0 and d % n == 0 for d, n in zip(shape, scale.shape, strict=True)
            )
            if not fits or sum(d != n for d, n in zip(shape, scale.shape, strict=False)) != 1:
                yield Place(
                    label(q.node), f"block scales {list(scale.shape)} for {list(shape)}, expected one blocked axis"
                )


def add_both_quantized(view: View) -> Iterator[Place]:
    """In a residual add, only the skip is quantized: a pair on the layer's own output breaks their fusion."""
    for add in (node for node in view.graph.nodes if node.op_type == "Add"):
        pairs = [view.quantizers.get(tensor) for tensor in add.input]
        if all(pair is not None and pair.role == "activation" for pair in pairs):
            for tensor in add.input:
                layer = _layer_behind_pair(view, tensor)
                if layer is not None:
                    yield Place(label(add), f"both inputs are quantized, also the output of {label(layer)!r}")
                    break


def _layer_behind_pair(view: View, tensor: str) -> NodeProto | None:
    """Return the layer whose output goes through Q and DQ to ``tensor`` and nowhere else."""
    for _ in range(2):
        maker = view.producer(tensor)
        if maker is None or view.only_user(tensor) is None:
            return None
        tensor = maker.input[0]
    layer = view.producer(tensor)
    return layer if layer is not None and layer.op_type in _WEIGHTED and view.only_user(tensor) is not None else None


def add_float_skip(view: View) -> Iterator[Place]:
    """The skip of a residual add behind an int8 layer is quantized, or the layer writes float."""
    for add in (node for node in view.graph.nodes if node.op_type == "Add"):
        layers = [view.producer(t) for t in add.input]
        int8 = [n is not None and n.op_type in _WEIGHTED and bool(view.dequantizers(n.input[0])) for n in layers]
        floats = [not view.is_constant(t) and not view.dequantizers(t) for t in add.input]
        if any(int8) and all(floats):
            yield Place(label(add), "no input is quantized, so the int8 layer in front of it writes float")


def concat_scales(view: View) -> Iterator[Place]:
    """All inputs of a Concat share one scale."""
    for node in (node for node in view.graph.nodes if node.op_type == "Concat"):
        pairs = [view.quantizers.get(tensor) for tensor in node.input]
        scales = [q.scale for q in pairs if q is not None and q.scale is not None]
        if len(scales) == len(node.input) and len({tuple(wide(s).reshape(-1)) for s in scales}) > 1:
            yield Place(label(node), f"its inputs have the scales {', '.join(map(codes_text, scales))}")


_PLACEMENT = (
    Rule(id="int32-dequantize", check=int32_dequantize, remedy="leave biases in float"),
    Rule(id="integer-operator", check=integer_operator, remedy="write Q/DQ around the float operator instead"),
    Rule(id="opset-range", check=opset_range, remedy="export with opset 20"),
    Rule(
        id="opset-new",
        check=opset_new,
        severity="warning",
        remedy="export with opset 20, the newest TensorRT 10.0 reads",
    ),
    Rule(id="unused-domain", check=unused_domain, remedy="remove it from opset_import"),
    Rule(id="foreign-operator", check=foreign_operator, remedy="replace it by ONNX operators or provide a plugin"),
    Rule(id="double", check=double, severity="warning", remedy="export in float32"),
    Rule(id="half-quantized", check=half_quantized, remedy="quantize both inputs or neither"),
    Rule(id="int4-form", check=int4_form, remedy="use int8 there"),
    Rule(id="add-both-quantized", check=add_both_quantized, remedy="quantize the skip branch only"),
    Rule(id="add-float-skip", check=add_float_skip, severity="warning", remedy="quantize the skip branch"),
    Rule(id="concat-scales", check=concat_scales, remedy="give all inputs of the Concat one scale"),
)
RULES = (
    *qdq.RULES,
    Rule(id="zero-point-int8", check=zero_point_int8, remedy="store an int8 zero point of zeros"),
    Rule(id="zero-point-zero", check=zero_point_zero, remedy="calibrate symmetrically, so that the zero point is 0"),
    Rule(id="uint8-inside", check=uint8_inside, remedy="use int8; uint8 is allowed only as input or output"),
    *_PLACEMENT,
)
MIRROR_RULES = (
    *qdq.RULES,
    Rule(
        id="mirror-zero-point",
        check=mirror_zero_point,
        remedy="make the mirror from the tensorrt file, which only moves activation zero points from 0 to 128",
    ),
    *_PLACEMENT,
)

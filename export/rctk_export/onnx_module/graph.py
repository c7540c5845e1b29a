"""A classifier graph read from ONNX: one input, one output, nodes in order, constants known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx
import torch
from onnx import TensorProto, inliner
from torch import Tensor

from rctk_export.onnx_module.coded import MOVES
from rctk_export.onnx_module.expand import expand
from rctk_export.onnx_module.node import Constant, Node, Settings, read_tensor
from rctk_export.onnx_module.operators import build
from rctk_kernels.errors import GraphError

OLDEST_OPSET = 7  # before it, broadcasting was an attribute


@dataclass(frozen=True)
class Graph:
    """What :class:`~rctk_export.onnx_module.OnnxModule` runs.

    Attributes:
        input: Name of the images.
        shape: Their declared shape ``(N, C, H, W)``; None where a size is dynamic.
        pixels: Whether the graph reads uint8 pixels instead of floats.
        output: Name of the logits.
        nodes: Every node that the logits need, in order; integer operators of other tools are written out.
        constants: Every tensor that is known before an image is seen.
        settings: What the operators are built for.
    """

    input: str
    shape: tuple[int | None, ...]
    pixels: bool
    output: str
    nodes: tuple[Node, ...]
    constants: dict[str, Constant]
    settings: Settings


def read_graph(model: onnx.ModelProto, settings: Settings) -> Graph:
    """Read ``model``; :class:`GraphError` names what makes it no classifier of one image tensor."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    opset = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 0)
    if opset < OLDEST_OPSET:
        raise GraphError(
            f"ONNX opset {opset} is older than {OLDEST_OPSET}; update the file with onnx.version_converter"
        )
    if model.graph.sparse_initializer:
        names = [sparse.values.name for sparse in model.graph.sparse_initializer]
        raise GraphError(f"sparse tensors {names} are not supported; save the model with dense ones")
    constants = {t.name: read_tensor(t, settings.dtype) for t in model.graph.initializer}
    images = _only("input", [value for value in model.graph.input if value.name not in constants])
    output = _only("output", list(model.graph.output)).name
    kind = images.type.tensor_type
    sizes = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim)
    nodes: list[Node] = []
    for proto in model.graph.node:
        node = replace(Node.read(proto, opset), settings=settings, constants=constants)
        if node.op == "Constant" and not node.domain:
            constants[node.outputs[0]] = _value(node)
        else:
            nodes += expand(node, constants)
    live = _following(_live(nodes, output), images.name, sizes[0] if sizes else None)
    _check_order(live, {images.name, *constants}, output)
    kept = tuple(_linked(_fold(live, constants), output))
    return Graph(images.name, sizes, kind.elem_type == TensorProto.UINT8, output, kept, constants, settings)


def _only(what: str, values: list[onnx.ValueInfoProto]) -> onnx.ValueInfoProto:
    if len(values) != 1:
        names = ", ".join(value.name for value in values) or "none"
        raise GraphError(
            f"a classifier has one {what}, this graph has {len(values)} ({names}); export images to logits"
        )
    return values[0]


def _value(node: Node) -> Constant:
    """Read the value of a Constant node, in whichever of its forms."""
    dtype = node.settings.dtype
    for name, value in node.attributes.items():
        if name == "value":
            return read_tensor(value, dtype)
        if name in {"value_float", "value_floats"}:
            return Constant(torch.tensor(value, dtype=dtype), TensorProto.FLOAT)
        if name in {"value_int", "value_ints"}:
            return Constant(torch.tensor(value, dtype=torch.int64), TensorProto.INT64)
    raise node.refuse(f"its value {sorted(node.attributes)} is not a dense tensor of numbers")


def _live(nodes: list[Node], output: str) -> list[Node]:
    """Keep what the logits need, and drop names of outputs that nobody reads."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        used = [name if name in needed else "" for name in node.outputs]
        if any(used):
            while not used[-1] and len(used) > 1 and node.op != "Split":
                used.pop()
            kept.append(replace(node, outputs=tuple(used)))
            needed.update(node.inputs)
    return kept[::-1]


def _following(nodes: list[Node], images: str, batch: int | None) -> list[Node]:
    """Tell all nodes whether codes can reach them, and those that depend on images which batch size the file fixes."""
    coded, moving, told = any(node.op == "DequantizeLinear" for node in nodes), {images}, []
    for node in nodes:
        follows = not moving.isdisjoint(node.inputs)
        moving.update(name for name in node.outputs if name and follows)
        settings = replace(node.settings, coded=coded, batch=batch if follows else None)
        told.append(replace(node, settings=settings))
    return told


def _check_order(nodes: list[Node], known: set[str], output: str) -> None:
    known = known | {""}
    for node in nodes:
        missing = [name for name in node.inputs if name not in known]
        if missing:
            raise GraphError(
                f"{node.where} reads {missing[0]!r}, which nothing before it makes; export the model again"
            )
        known.update(node.outputs)
    if output not in known:
        raise GraphError(f"nothing makes the output {output!r}; export the model again")


def _fold(nodes: list[Node], constants: dict[str, Constant]) -> list[Node]:
    """Compute at once what depends neither on images nor on weights or quantized values: shapes, mostly."""
    stored = trainable(nodes, constants) | quantized(nodes, constants)
    kept: list[Node] = []
    for node in nodes:
        ready = all(not name or (name in constants and name not in stored) for name in node.inputs)
        if not ready or node.op in {"QuantizeLinear", "DequantizeLinear"}:
            kept.append(node)
            stored.update(name for name in node.outputs if name)
            continue
        values = build(node)(*[constants[name].tensor if name else None for name in node.inputs])
        for name, value in zip(node.outputs, values if isinstance(values, tuple) else (values,), strict=False):
            constants[name] = Constant(value, _kind(value))
    return kept


def _kind(value: Tensor) -> int:
    return int(TensorProto.FLOAT if value.is_floating_point() else TensorProto.INT64)


WEIGHTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
}
"""Inputs of an operator that training changes."""


def trainable(nodes: list[Node] | tuple[Node, ...], constants: dict[str, Constant]) -> set[str]:
    """Return the names of float constants that are weights or biases, also behind a Transpose or a Q/DQ pair.

    A constant added to what a product gives is a bias; other constants (means, clip bounds, scales) are no weights.
    """
    makers = {name: node for node in nodes for name in node.outputs}
    still = {"", *constants}  # what does not depend on the images
    for node in nodes:
        if still.issuperset(node.inputs):
            still.update(node.outputs)
    wanted: set[str] = set()
    for node in reversed(nodes):
        if node.op == "Add":
            for name, other in (node.inputs, node.inputs[::-1]):
                maker = makers.get(other)
                if name in constants and maker is not None and maker.op in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
                    wanted.add(name)
        wanted.update(node.inputs[i] for i in WEIGHTS.get(node.op, ()) if i < len(node.inputs))
        if any(name in wanted and name in still for name in node.outputs):
            quantizer = node.op in {"QuantizeLinear", "DequantizeLinear"}
            wanted.update(node.inputs[:1] if quantizer else node.inputs)
    return {name for name in wanted if name in constants and constants[name].tensor.is_floating_point()}


def quantized(nodes: list[Node] | tuple[Node, ...], constants: dict[str, Constant]) -> set[str]:
    """Return the names of constants that are codes, scales or zero points."""
    readers = (node for node in nodes if node.op in {"QuantizeLinear", "DequantizeLinear"})
    names = {name for node in readers for name in node.inputs if name in constants}
    return names - trainable(nodes, constants)


def _linked(nodes: list[Node], output: str) -> list[Node]:
    """Tell each node whether only quantizers read it, and each convolution the shape of its kernel."""
    makers = {name: node for node in nodes for name in node.outputs}
    readers: dict[str, list[str]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node.op)
    linked = []
    for node in nodes:
        ops, attributes = readers.get(node.outputs[0], []), dict(node.attributes)
        quantizers = bool(ops) and set(ops) == {"QuantizeLinear"} and node.outputs[0] != output
        if node.op in {"Conv", "ConvTranspose"} and "kernel_shape" not in attributes:
            weight = node.inputs[1]
            while weight in makers and makers[weight].op in {"DequantizeLinear", "QuantizeLinear", "Identity"}:
                weight = makers[weight].inputs[0]
            if weight in node.constants:
                attributes["kernel_shape"] = list(node.constants[weight].tensor.shape[2:])
        linked.append(replace(node, feeds_quantizer=quantizers, attributes=attributes))
    return linked


def code_names(graph: Graph) -> set[str]:
    """Return the names of tensors that hold codes: what a QuantizeLinear gives, also after it was moved or pooled."""
    names: set[str] = set()
    for node in graph.nodes:
        if node.op == "QuantizeLinear" or (node.op in MOVES and node.inputs[0] in names):
            names.add(node.outputs[0])
    return names

"""A quantized graph as its rules look at it: Q/DQ nodes with their constants, and what lies around a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto

from rctk_export.graph import Graph, Reader, attributes
from rctk_kernels.errors import GraphError

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that multiply by weights, and so the ones that int8 is for."""
COMMUTING = {"MaxPool", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Identity"}
"""Operators through which a compiler moves Q and DQ without changing a code."""


@dataclass(frozen=True)
class Quantizer:
    """One ``QuantizeLinear`` or ``DequantizeLinear`` node.

    Attributes:
        node: The node.
        scale: Value of its scale, None where that is computed.
        zero: Value of its zero point, None where it has none or it is computed.
        axis: As written on the node, None where it is not.
        role: ``weight`` where the data is constant, ``bias`` where it is constant int32, otherwise ``activation``.
    """

    node: NodeProto
    scale: npt.NDArray[Any] | None
    zero: npt.NDArray[Any] | None
    axis: int | None
    role: str

    @property
    def quantizes(self) -> bool:
        """Whether this is a ``QuantizeLinear``."""
        return self.node.op_type == "QuantizeLinear"

    @property
    def data(self) -> str:
        """Name of the tensor that goes in."""
        return str(self.node.input[0])


class View:
    """Read-only view of ``model`` for rules."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = Graph(model)
        _require_order(self.graph)
        self.producers, self.readers = self.graph.index()
        self._sources: dict[str, list[Quantizer] | None] = {}
        self.opset = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 0)

    def producer(self, tensor: str) -> NodeProto | None:
        """Return the node that makes ``tensor``; None for inputs and constants."""
        return self.producers.get(tensor)

    def users(self, tensor: str) -> list[Reader]:
        """Return every use of ``tensor`` by a node."""
        return self.readers.get(tensor, [])

    def only_user(self, tensor: str) -> NodeProto | None:
        """Return the node that reads ``tensor`` where it is read once and is no graph output."""
        users = self.users(tensor)
        return users[0].node if len(users) == 1 and tensor not in self.graph.outputs else None

    @cached_property
    def quantizers(self) -> dict[str, Quantizer]:
        """All Q and DQ nodes by the name of their output."""
        return {n.output[0]: self._quantizer(n) for n in self.graph.nodes if n.op_type in _QDQ}

    @cached_property
    def formats(self) -> list[Quantizer]:
        """The Q and DQ nodes without those DQ that follow a Q: one for each quantized tensor."""
        return [q for q in self.quantizers.values() if q.quantizes or q.data not in self.quantizers]

    @property
    def layers(self) -> list[NodeProto]:
        """All nodes that multiply by weights, in graph order."""
        return [node for node in self.graph.nodes if node.op_type in LAYERS]

    @cached_property
    def _inferred(self) -> dict[str, onnx.TypeProto.Tensor]:
        try:
            graph = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        except onnx.shape_inference.InferenceError:
            graph = self.model.graph  # shapes only sharpen messages and axis checks
        return {i.name: i.type.tensor_type for i in (*graph.value_info, *graph.input, *graph.output)}

    @cached_property
    def types(self) -> dict[str, int]:
        """Element type of every tensor for which it is known."""
        stored = {t.name: t.data_type for t in self.model.graph.initializer}
        return {name: info.elem_type for name, info in self._inferred.items()} | stored

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return the shape of ``tensor`` with -1 for unknown sizes; None where the rank is unknown."""
        if tensor in self.graph.constants:
            return self.graph.constants[tensor].shape
        info = self._inferred.get(tensor)
        if info is None or not info.HasField("shape"):
            maker = self.producer(tensor)
            return self.shape(maker.input[0]) if maker is not None and maker.op_type in _QDQ else None
        return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in info.shape.dim)

    def root(self, tensor: str) -> str:
        """Return the tensor that ``tensor`` is a quantized, reshaped or copied form of, walking upwards."""
        maker = self.producer(tensor)
        while maker is not None and maker.op_type in {*_QDQ, "Transpose", "Reshape", "Identity", "Cast"}:
            tensor = maker.input[0]
            maker = self.producer(tensor)
        return tensor

    def is_constant(self, tensor: str) -> bool:
        """Return whether ``tensor`` comes from stored numbers alone, through Q/DQ and reshaping at most."""
        return self.root(tensor) in self.graph.constants

    def dequantizers(self, tensor: str) -> list[Quantizer] | None:
        """Return the DQ nodes that ``tensor`` comes from through commuting operators; None where a part is float."""
        if tensor not in self._sources:
            self._sources[tensor] = self._dequantizers(tensor)
        return self._sources[tensor]

    def _dequantizers(self, tensor: str) -> list[Quantizer] | None:
        maker = self.producer(tensor)
        if maker is None:
            return None
        if maker.op_type == "DequantizeLinear":
            return [self.quantizers[tensor]]
        if maker.op_type not in COMMUTING:
            return None
        found: dict[str, Quantizer] = {}
        for part in maker.input if maker.op_type == "Concat" else maker.input[:1]:
            sources = self.dequantizers(part)
            if sources is None:
                return None
            found.update({q.node.output[0]: q for q in sources})
        return list(found.values())

    def _quantizer(self, node: NodeProto) -> Quantizer:
        role = "activation"
        if self.is_constant(node.input[0]):
            role = "bias" if self.types.get(node.input[0]) == TensorProto.INT32 else "weight"
        constant = self.graph.constant
        return Quantizer(node, constant(node, 1), constant(node, 2), attributes(node).get("axis"), role)


def _require_order(graph: Graph) -> None:
    known = {*graph.inputs, *graph.constants, ""}
    for node in graph.nodes:
        for name in node.input:
            if name not in known:
                raise GraphError(
                    f"node {label(node)!r} reads {name!r} before anything makes it; export the model again"
                )
        if node.op_type in {*_QDQ, *LAYERS} and len(node.input) < 2:
            raise GraphError(
                f"node {label(node)!r} has {len(node.input)} inputs, {node.op_type} needs 2; export it again"
            )
        known.update(node.output)


_QDQ = ("QuantizeLinear", "DequantizeLinear")


def label(node: NodeProto) -> str:
    """Return the name of ``node``, or its operator and output where it has none."""
    return node.name or f"{node.op_type}->{node.output[0]}"


def wide(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return ``array`` of any element type, int4 and float8 included, as float64."""
    return array.astype(np.float64)


def codes_text(array: npt.NDArray[Any]) -> str:
    """Return the distinct values of a small-integer array for a message, shortened."""
    values = [f"{value:g}" for value in np.unique(wide(array))]
    return ", ".join(values[:4]) + (", ..." if len(values) > 4 else "") if values else "missing"


def scale_pairs(view: View) -> Iterator[tuple[Quantizer, npt.NDArray[np.float64]]]:
    """Yield every Q and DQ whose scale is a constant, with it."""
    for quantizer in view.quantizers.values():
        if quantizer.scale is not None:
            yield quantizer, wide(quantizer.scale)

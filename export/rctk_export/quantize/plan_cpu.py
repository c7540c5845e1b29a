"""Placement for ONNX Runtime and OpenVINO on CPUs: every tensor between int8 operators is on a uint8 grid.

ONNX Runtime fuses ``DQ -> op -> Q`` into one int8 kernel only if all inputs and the output of the operator are
quantized, so residual adds get a pair on both inputs. A ReLU in front of ``Q`` with zero point 0 is the saturation of
``Q`` itself and is left out. Linear layers may leave in float, so the logits are never rounded. The fast kernels of
ONNX Runtime take input channels four at a time: images get a zero channel where that lets the first layer use them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx

from rctk_export.graph import Graph, Reader, attributes
from rctk_export.quantize.plan import (
    ACTIVATIONS,
    MOVING,
    WEIGHTED,
    Layer,
    Plan,
    dynamic_inputs,
    kept_float_nodes,
    moves_exactly,
    refused,
)
from rctk_export.shortcut import selects

ARITHMETIC = {"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "LeakyRelu", "Sigmoid"}
"""Operators with an int8 kernel of their own (``QLinearAdd``, ...)."""
PIXELWISE = {"Add", "Sub", "Mul", "Div"}
"""Operators of a normalisation."""
CHANNELS, OUTPUTS = 4, 16
"""ONNX Runtime's fast convolution takes multiples of 4 input channels and at least 16 output channels; measured with
1.31: 12 instead of 19 microseconds for a 3x3 convolution of 32x32 pixels from 3 to 16 channels."""


@dataclass(frozen=True, kw_only=True)
class CpuPlanner:
    """uint8 activations, int8 weights, int32 biases."""

    def plan(self, graph: Graph, keep_float: Collection[str] = ()) -> Plan:
        """See :class:`rctk_export.quantize.plan.Planner`."""
        return _Walk(graph, keep_float).run()


class _Walk:
    def __init__(self, graph: Graph, keep_float: Collection[str]) -> None:
        self.graph, self.keep_float = graph, keep_float
        self.producers, self.readers = graph.index()
        self.plan = Plan(signed=False, integer_bias=True)
        self.reasons: dict[str, str] = {}

    def run(self) -> Plan:
        for node in self.graph.nodes:
            if node.op_type in WEIGHTED:
                self._weighted(node)
            elif node.op_type in MOVING:
                self._moving(node)
            elif node.op_type in ARITHMETIC:
                self._arithmetic(node)
        self.plan.kept_float = kept_float_nodes(self.graph, self.plan, self.reasons)
        return self.plan

    def _weighted(self, node: onnx.NodeProto) -> None:
        reason = refused(self.graph, node, self.keep_float)
        if reason:
            self.reasons[node.name] = reason
            return
        self.plan.layers.append(Layer(node.name))
        self._quantize(node.input[0])
        self._widen(node)
        last = self._activated(node)
        if last == node.output[0] and selects(self.graph, node):
            self._quantize(last, self.plan.tensors[node.input[0]])  # equal grids: the codes only move
        elif node.op_type == "Conv" or self._read_by_int8(last):
            self._quantize(last)

    def _widen(self, node: onnx.NodeProto) -> None:
        weight = self.graph.constant(node, 1)
        assert weight is not None
        dense = node.op_type == "Conv" and weight.ndim == 4 and attributes(node).get("group", 1) == 1
        missing = -weight.shape[1] % CHANNELS
        if dense and missing and len(weight) >= OUTPUTS and self._pixels(node.input[0]):
            self.plan.widened[node.input[0]] = missing

    def _pixels(self, tensor: str) -> bool:
        """Whether ``tensor`` is the images or their normalised form, and nothing else reads either."""
        while len(self.readers[tensor]) == 1 and tensor not in self.graph.outputs:
            node = self.producers.get(tensor)
            if node is None:
                return tensor in self.graph.inputs
            moving = dynamic_inputs(self.graph, node)
            if node.op_type not in PIXELWISE or len(moving) != 1:
                break
            tensor = node.input[moving[0].slot]
        return False

    def _moving(self, node: onnx.NodeProto) -> None:
        source = node.input[0]
        if source in self.plan.tensors and moves_exactly(self.graph, node):
            self.plan.tensors.setdefault(node.output[0], self.plan.tensors[source])

    def _arithmetic(self, node: onnx.NodeProto) -> None:
        inputs = dynamic_inputs(self.graph, node)
        if not inputs or len(inputs) != len([name for name in node.input if name]):
            return  # adding or multiplying a constant stays float between two pairs
        if node.name not in self.keep_float and all(node.input[r.slot] in self.plan.tensors for r in inputs):
            self._quantize(self._activated(node))

    def _quantize(self, tensor: str, source: str = "") -> None:
        if tensor not in self.graph.outputs:
            self.plan.tensors.setdefault(tensor, source or tensor)

    def _activated(self, node: onnx.NodeProto) -> str:
        """Return the tensor behind a ReLU or Clip that alone reads ``node``; that activation becomes saturation."""
        out: str = node.output[0]
        readers = self.readers[out]
        if len(readers) != 1 or out in self.graph.outputs or readers[0].node.op_type not in ACTIVATIONS:
            return out
        activation = readers[0].node
        if activation.output[0] in self.graph.outputs or not _from_zero(self.graph, activation):
            return out
        if node.op_type == "Gemm" and not self._read_by_int8(activation.output[0]):
            return out
        self.plan.saturating.add(activation.name)
        last: str = activation.output[0]
        return last

    def _read_by_int8(self, tensor: str) -> bool:
        """Whether an int8 operator will read ``tensor``, directly or behind operators that only move it."""
        return any(self._int8_reader(reader) for reader in self.readers[tensor])

    def _int8_reader(self, reader: Reader) -> bool:
        node = reader.node
        if node.op_type in MOVING:
            return moves_exactly(self.graph, node) and self._read_by_int8(node.output[0])
        if node.op_type in WEIGHTED:
            return reader.slot == 0 and refused(self.graph, node, self.keep_float) is None
        return node.op_type in ARITHMETIC and len(dynamic_inputs(self.graph, node)) == len(node.input)


def _from_zero(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether an activation keeps ``[0, high]``, which a uint8 grid with zero point 0 does by itself."""
    if node.op_type == "Relu":
        return True
    low, high = clip_bounds(graph, node)
    return low == 0 and high > 0


def clip_bounds(graph: Graph, node: onnx.NodeProto) -> tuple[float, float]:
    """Return the bounds of a Clip, infinite where it has none or computes them."""
    settings = {a.name: a.f for a in node.attribute}
    bounds = []
    for i, (name, missing) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        value = graph.constant(node, i)
        bounds.append(settings.get(name, missing) if value is None else float(value.reshape(-1)[0]))
    return bounds[0], bounds[1]

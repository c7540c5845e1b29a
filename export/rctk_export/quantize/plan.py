"""What a planner decides: which tensors are quantized, for which readers, and which layers stay float."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx

from rctk_export.graph import Graph, Reader, attributes
from rctk_export.shortcut import selects

MOVING = {
    "MaxPool",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Pad",
    "DepthToSpace",
    "Identity",
}
"""Operators that only select or move values: input and output can share one grid."""
ACTIVATIONS = {"Relu", "Clip"}
"""Operators that saturation can replace."""
WEIGHTED = {"Conv", "Gemm"}
COMPUTING = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "GridSample", "Resize", "BatchNormalization"} | {
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "Softmax", "Attention", "LSTM", "GRU", "RNN"
}  # fmt: skip
"""Operators worth naming when they stay float; the rest is elementwise or shape arithmetic."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer that runs in int8.

    Attributes:
        name: Of the node.
        axis: Output-channel axis of its weight.
    """

    name: str
    axis: int = 0


@dataclass(frozen=True)
class KeptFloat:
    """A node that stays float, and why."""

    name: str
    op: str
    reason: str


@dataclass
class Plan:
    """The decisions of one planner for one graph.

    Attributes:
        signed: Activation codes are int8 around zero point 0; otherwise uint8 with a free zero point.
        layers: Quantized convolutions and linear layers.
        tensors: Quantized tensor to the tensor whose calibrated range it uses (itself, unless values only moved).
        readers: Quantized tensor to the ``(node, input)`` pairs that read the quantized value; a tensor without an
            entry is read quantized by everyone.
        saturating: Names of Relu and Clip nodes that the following saturation replaces.
        widened: Tensor that a first layer alone reads, the images or their normalised form, to the number of zero
            channels that the images get.
        integer_bias: Biases become int32 on the grid of the sums.
        float_weights: Weights are stored float with Q and DQ behind them, instead of int8 with DQ.
        kept_float: Nodes that stay float although they compute.
    """

    signed: bool
    integer_bias: bool
    float_weights: bool = False
    layers: list[Layer] = field(default_factory=list)
    tensors: dict[str, str] = field(default_factory=dict)
    readers: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    saturating: set[str] = field(default_factory=set)
    widened: dict[str, int] = field(default_factory=dict)
    kept_float: list[KeptFloat] = field(default_factory=list)

    def calibrated(self) -> list[str]:
        """Return the tensors whose range must be known."""
        return sorted(set(self.tensors.values()))


class Planner(Protocol):
    """A row of the target table: decides where a target wants its Q/DQ pairs."""

    def plan(self, graph: Graph, keep_float: Collection[str] = ()) -> Plan:
        """Return the plan for a simplified float graph.

        Args:
            graph: Not changed.
            keep_float: Names of layers that the user wants in float.
        """
        ...


def refused(graph: Graph, node: onnx.NodeProto, keep_float: Collection[str]) -> str | None:
    """Say why a weighted node cannot be int8, or None."""
    if node.name in keep_float:
        return "kept float on request"
    if node.op_type == "Gemm" and not attributes(node).get("transB", 0):
        return "its weight is computed at run time"
    weight, bias = graph.constant(node, 1), graph.constant(node, 2)
    if weight is None:
        return "its weight is computed at run time"
    if bias is None and len(node.input) > 2 and node.input[2]:
        return "its bias is computed at run time"
    if node.op_type == "Conv" and weight.ndim not in {3, 4}:
        return f"convolutions of {weight.ndim - 2} spatial dimensions have no int8 kernel"
    return None


def kept_float_nodes(graph: Graph, plan: Plan, reasons: Mapping[str, str]) -> list[KeptFloat]:
    """List every computing node that the plan leaves float, with the given or the general reason."""
    quantized = {layer.name for layer in plan.layers}
    return [
        KeptFloat(node.name, node.op_type, reasons.get(node.name) or _general_reason(graph, node))
        for node in graph.nodes
        if node.op_type in COMPUTING and node.name not in quantized
    ]


def _general_reason(graph: Graph, node: onnx.NodeProto) -> str:
    if node.op_type in {"MatMul", "Einsum"} and len(dynamic_inputs(graph, node)) > 1:
        return "all its factors are computed at run time"
    if node.op_type == "BatchNormalization":
        return "no layer beside it can take it"
    return "no int8 form on this target"


def leader(graph: Graph, producers: Mapping[str, onnx.NodeProto], tensor: str) -> str:
    """Follow ``tensor`` back through operators that only move or select values, to where its values were made."""
    node = producers.get(tensor)
    while node is not None and ((node.op_type in MOVING and moves_exactly(graph, node)) or selects(graph, node)):
        tensor = node.input[0]
        node = producers.get(tensor)
    return tensor


def depths(graph: Graph) -> dict[str, int]:
    """Return, for every tensor, the number of weighted layers on its longest path from the images."""
    depth: dict[str, int] = {}
    for node in graph.nodes:
        reached = max((depth.get(name, 0) for name in node.input), default=0)
        for name in node.output:
            depth[name] = reached + (node.op_type in WEIGHTED)
    return depth


def moves_exactly(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a moving operator adds no new values; padding with anything but zero does."""
    if node.op_type != "Pad":
        return True
    value = graph.constant(node, 2)
    settings = attributes(node)
    filler = settings.get("value", 0.0) if value is None else float(np.asarray(value).reshape(-1)[0])
    return settings.get("mode", b"constant") != b"constant" or filler == 0


def dynamic_inputs(graph: Graph, node: onnx.NodeProto) -> list[Reader]:
    """Return the inputs of ``node`` that are not constants."""
    return [Reader(node, i) for i, name in enumerate(node.input) if name and name not in graph.constants]

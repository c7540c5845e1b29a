"""Layers that follow each other through operators which commute with scaling a channel by a positive number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from rctk_export.graph import Graph, attributes
from rctk_export.quantize.plan import WEIGHTED, refused
from rctk_export.shapes import flattens, shapes

HOMOGENEOUS = {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity"}
"""``f(s * x) = s * f(x)`` for positive ``s``, channel by channel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Link:
    """Layer, operators, layer; nobody else reads what lies between.

    Attributes:
        first: Makes the channels.
        second: Reads them.
        between: Nodes on the way.
        channels: How many there are.
        groups: Of the second layer.
    """

    first: onnx.NodeProto
    second: onnx.NodeProto
    between: tuple[onnx.NodeProto, ...]
    channels: int
    groups: int

    @property
    def rectified(self) -> bool:
        """Whether a ReLU comes first, so that the second layer reads values of 0 or more."""
        return bool(self.between) and self.between[0].op_type == "Relu"


def links(graph: Graph) -> list[Link]:
    """Return every link of ``graph`` in order; bounded activations (ReLU6) and branches end a chain."""
    _, readers = graph.index()
    known = shapes(graph)
    found = []
    for first in graph.nodes:
        weight = graph.constant(first, 1) if first.op_type in WEIGHTED and not refused(graph, first, ()) else None
        if weight is None:
            continue
        node, between = first, list[onnx.NodeProto]()
        while len(readers[node.output[0]]) == 1 and node.output[0] not in graph.outputs:
            reader = readers[node.output[0]][0]
            node = reader.node
            if node.op_type in WEIGHTED:
                if reader.slot == 0 and not refused(graph, node, ()):
                    found.append(_link(graph, first, node, between, len(weight)))
                break
            if node.op_type not in HOMOGENEOUS and not flattens(graph, known, node):
                break
            between.append(node)
    return [link for link in found if link is not None]


def _link(
    graph: Graph, first: onnx.NodeProto, second: onnx.NodeProto, between: list[onnx.NodeProto], channels: int
) -> Link | None:
    weight = graph.constant(second, 1)
    assert weight is not None
    groups = int(attributes(second).get("group", 1))
    reads = weight.shape[1] * groups
    flat = any(node.op_type in {"Flatten", "Reshape"} for node in between)
    if reads != channels and not (flat and groups == 1 and reads % channels == 0):
        return None
    return Link(first=first, second=second, between=tuple(between), channels=channels, groups=groups)


def by_channel(link: Link, weight: np.ndarray) -> np.ndarray:
    """Return the weight of ``link.second`` as ``(groups, O / groups, C / groups, rest)``, a view where possible."""
    return weight.reshape(link.groups, len(weight) // link.groups, link.channels // link.groups, -1)

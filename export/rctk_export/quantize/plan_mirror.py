"""The ``tensorrt`` file for machines without TensorRT: int8 activations move by 128 to uint8, same arithmetic."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx

from rctk_export.graph import Graph
from rctk_export.quantize.plan import Plan
from rctk_export.quantize.plan_tensorrt import TensorrtPlanner

SHIFT = 128


@dataclass(frozen=True, kw_only=True)
class MirrorPlanner:
    """The arithmetic of ``tensorrt`` in uint8 codes, to be run on a CPU; not meant to be fast."""

    def plan(self, graph: Graph, keep_float: Collection[str] = ()) -> Plan:
        """See :class:`rctk_export.quantize.plan.Planner`."""
        return TensorrtPlanner().plan(graph, keep_float)


def mirror(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a ``tensorrt`` file whose activations are uint8 with zero point 128; weights are untouched.

    ``q + 128`` with zero point 128 stands for the same real value as ``q`` with zero point 0 and saturates at the same
    two ends, so unoptimised sessions of both files give identical logits.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    moved: dict[str, str] = {}
    weights = set(graph.constants)
    for node in graph.nodes:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        if node.input[0] in weights:
            weights.add(node.output[0])
            continue
        zero = graph.constants[node.input[2]]
        if zero.dtype == np.int8:
            if node.input[2] not in moved:
                moved[node.input[2]] = graph.add_constant(
                    f"{node.input[2]}.u8", (zero.astype(np.int16) + SHIFT).astype(np.uint8)
                )
            node.input[2] = moved[node.input[2]]
    return graph.finish()

"""Placement for OpenVINO on CPUs: the form of ``cpu``, without the pair between a convolution and a residual add.

OpenVINO computes convolution, add and the Q behind them in one kernel. A pair between convolution and add loses its
rounding there (2026.4.1: what is added equals the unrounded sums, code for code), so the engine would not compute what
the file says. Without that pair file and engine mean the same, and nothing gets slower. Two cases keep it, since
OpenVINO does not fuse them: the convolution reads the very tensor that is added to it, and the other convolution of
an add of two.

A mean over tokens reads floats: for codes ``(N, T, C)`` OpenVINO 2026.4.1 returns numbers that have nothing to do with
them, as it reads memory of another type.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from rctk_export.graph import Graph
from rctk_export.quantize.plan import ACTIVATIONS, MOVING, Plan, depths, dynamic_inputs, moves_exactly
from rctk_export.quantize.plan_cpu import CpuPlanner
from rctk_export.shapes import shapes

SUMMING = {"ReduceMean", "ReduceSum"}
IMAGE_AXES = 4
"""With so many axes OpenVINO sums codes as it should."""


@dataclass(frozen=True, kw_only=True)
class OpenVinoPlanner:
    """uint8 activations, int8 weights, int32 biases; what a convolution gives to a residual add is float."""

    def plan(self, graph: Graph, keep_float: Collection[str] = ()) -> Plan:
        """See :class:`rctk_export.quantize.plan.Planner`."""
        plan = CpuPlanner().plan(graph, keep_float)
        producers, _ = graph.index()
        depth = depths(graph)
        for node in graph.nodes:
            slots = [i for i in range(len(node.input)) if _fuses(graph, producers, plan, node, i)]
            if slots:
                freed = node.input[max(slots, key=lambda i: depth[node.input[i]])]
                del plan.tensors[freed]
                plan.saturating.discard(producers[freed].name)
        known = shapes(graph)
        for node in graph.nodes:
            if node.op_type in SUMMING and len(known.get(node.input[0], ())) != IMAGE_AXES:
                _read_floats(graph, producers, plan, node)
        return plan


def _read_floats(graph: Graph, producers: Mapping[str, onnx.NodeProto], plan: Plan, node: onnx.NodeProto) -> None:
    """Let ``node`` read no quantized value, also not one that was only moved; other readers still do.

    What a convolution gives to others as well stays quantized: its kernel needs that, and lays channels last.
    """
    reader: onnx.NodeProto | None = node
    while reader is not None and (reader is node or (reader.op_type in MOVING and moves_exactly(graph, reader))):
        tensor = reader.input[0]
        if tensor in plan.tensors:
            if len(graph.readers(tensor)) > 1 and _convolved(producers, tensor):
                return
            everyone = {(other.name, slot) for other, slot in graph.readers(tensor)}
            chosen = plan.readers.get(tensor, everyone) - {(reader.name, 0)}
            plan.readers[tensor] = chosen
            if not chosen:
                del plan.tensors[tensor], plan.readers[tensor]
            if tensor in producers:
                plan.saturating.discard(producers[tensor].name)
        reader = producers.get(tensor)


def _fuses(graph: Graph, producers: Mapping[str, onnx.NodeProto], plan: Plan, node: onnx.NodeProto, slot: int) -> bool:
    """Whether OpenVINO adds the other input of a residual add in the kernel of the convolution behind ``slot``."""
    if node.op_type != "Add" or len(dynamic_inputs(graph, node)) != 2:
        return False
    tensor, other = node.input[slot], node.input[1 - slot]
    if plan.tensors.get(tensor) != tensor or other not in plan.tensors or len(graph.readers(tensor)) != 1:
        return False
    maker = _convolved(producers, tensor)
    return maker is not None and maker.input[0] != other


def _convolved(producers: Mapping[str, onnx.NodeProto], tensor: str) -> onnx.NodeProto | None:
    """Return the convolution that makes ``tensor``, by itself or with its activation function."""
    maker = producers.get(tensor)
    if maker is not None and maker.op_type in ACTIVATIONS:
        maker = producers.get(maker.input[0])
    return maker if maker is not None and maker.op_type == "Conv" else None

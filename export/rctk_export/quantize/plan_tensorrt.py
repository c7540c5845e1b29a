"""Placement for TensorRT: pairs on the inputs of weighted layers and of pooling, and on the skip side of residual adds.

Rules of NVIDIA's explicit-quantization guide: quantize all inputs of convolutions and linear layers, not their outputs;
at a residual add quantize only the skip branch, so that the other one fuses as convolution + add; operators that only
move values need no pair of their own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx

from rctk_export.graph import Graph
from rctk_export.quantize.plan import (
    MOVING,
    WEIGHTED,
    Layer,
    Plan,
    depths,
    dynamic_inputs,
    kept_float_nodes,
    leader,
    refused,
)

POOLS = {"GlobalAveragePool", "AveragePool"}


@dataclass(frozen=True, kw_only=True)
class TensorrtPlanner:
    """int8 activations with zero point 0, int8 weights, float biases.

    Attributes:
        float_weights: Store weights float with Q and DQ (TensorRT 8.6 and all later); False stores int8 with DQ, a
            quarter of the size, for TensorRT 10 and later.
    """

    float_weights: bool = True

    def plan(self, graph: Graph, keep_float: Collection[str] = ()) -> Plan:
        """See :class:`rctk_export.quantize.plan.Planner`."""
        plan = Plan(signed=True, integer_bias=False, float_weights=self.float_weights)
        producers, _ = graph.index()
        depth = depths(graph)
        reasons: dict[str, str] = {}

        def quantize(tensor: str, node: onnx.NodeProto, slot: int) -> None:
            plan.tensors[tensor] = leader(graph, producers, tensor)
            plan.readers.setdefault(tensor, set()).add((node.name, slot))

        for node in graph.nodes:
            if node.op_type in WEIGHTED:
                reason = refused(graph, node, keep_float)
                if reason:
                    reasons[node.name] = reason
                    continue
                plan.layers.append(Layer(node.name))
                quantize(node.input[0], node, 0)
        quantized = {layer.name for layer in plan.layers}
        for node in graph.nodes:
            if node.op_type in POOLS and _behind_int8(producers, node.input[0], quantized):
                quantize(node.input[0], node, 0)
            slot = _skip_slot(graph, producers, depth, node, quantized)
            if slot is not None and node.name not in keep_float:
                quantize(node.input[slot], node, slot)
        plan.kept_float = kept_float_nodes(graph, plan, reasons)
        return plan


def _skip_slot(
    graph: Graph,
    producers: dict[str, onnx.NodeProto],
    depth: dict[str, int],
    node: onnx.NodeProto,
    quantized: set[str],
) -> int | None:
    """Return which input of a residual add is the skip branch: not the convolution with most layers behind it."""
    if node.op_type != "Add" or len(dynamic_inputs(graph, node)) != 2:
        return None
    makers = [producers.get(name) for name in node.input]
    convs = [i for i, m in enumerate(makers) if m is not None and m.op_type == "Conv" and m.name in quantized]
    if not convs:
        return None
    main = max(convs, key=lambda i: depth[node.input[i]])
    return 1 - main


def _behind_int8(producers: dict[str, onnx.NodeProto], tensor: str, quantized: set[str]) -> bool:
    """Whether ``tensor`` comes out of an int8 layer through activations, adds and moves only."""
    node = producers.get(tensor)
    while node is not None and node.op_type in MOVING | {"Relu", "Clip", "LeakyRelu"}:
        node = producers.get(node.input[0])
    return node is not None and (node.name in quantized or node.op_type in {"Add", "Concat"})

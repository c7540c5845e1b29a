"""The order in which a graph runs: functions, where their inputs lie, and what is free afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from rctk_export.onnx_module.graph import Graph
from rctk_export.onnx_module.node import Constant, Node, Op
from rctk_export.onnx_module.operators import build


class Step(NamedTuple):
    """One call.

    Attributes:
        function: A torch function.
        inputs: Slots of its arguments; slot 0 holds None.
        outputs: Slots of its results.
        names: Of the results, in the graph.
        frees: Slots that nobody reads afterwards.
        many: Whether the function returns a tuple.
    """

    function: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    names: tuple[str, ...]
    frees: tuple[int, ...]
    many: bool


@dataclass(frozen=True)
class Plan:
    """A graph ready to run.

    Attributes:
        slots: Name to place. Slot 0 holds None, slot 1 the images.
        constants: Slots and names of the constants that steps read.
        fixed: Steps that depend on constants only, such as dequantizing weights.
        steps: Steps that depend on the images.
        hidden: Names that do not exist here, because two nodes became one step.
    """

    slots: dict[str, int]
    constants: tuple[tuple[int, str], ...]
    fixed: tuple[Step, ...]
    steps: tuple[Step, ...]
    hidden: frozenset[str]


def make_plan(graph: Graph, *, fuse: bool) -> Plan:
    """Schedule ``graph``; ``fuse`` makes one step of a QuantizeLinear and the DequantizeLinear that alone reads it."""
    nodes, hidden = _fused(graph) if fuse else (graph.nodes, frozenset[str]())
    slots: dict[str, int] = {"": 0, graph.input: 1}
    for node in nodes:
        for name in (*node.inputs, *node.outputs):
            slots.setdefault(name, len(slots))
    slots.setdefault(graph.output, len(slots))
    moving = {graph.input}
    fixed_nodes, moving_nodes = [], []
    for node in nodes:
        if moving.isdisjoint(node.inputs):
            fixed_nodes.append(node)
        else:
            moving_nodes.append(node)
            moving.update(name for name in node.outputs if name)
    fixed = [_step(node, slots, ()) for node in fixed_nodes]
    constants = tuple((slot, name) for name, slot in slots.items() if name in graph.constants)
    steps = _freeing(moving_nodes, slots, moving, graph.output)
    return Plan(slots, constants, tuple(fixed), tuple(steps), hidden)


def _freeing(nodes: Sequence[Node], slots: dict[str, int], moving: set[str], output: str) -> list[Step]:
    last: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in (*node.inputs, *node.outputs):
            last[name] = i
    steps = []
    for i, node in enumerate(nodes):
        names = {*node.inputs, *node.outputs} & moving - {output}
        steps.append(_step(node, slots, tuple(sorted(slots[name] for name in names if last[name] == i))))
    return steps


def _step(node: Node, slots: dict[str, int], frees: tuple[int, ...]) -> Step:
    inputs, outputs = (tuple(slots[name] for name in names) for names in (node.inputs, node.outputs))
    return Step(build(node), inputs, outputs, node.outputs, frees, node.op in {"Split", "DynamicQuantizeLinear"})


def _fused(graph: Graph) -> tuple[tuple[Node, ...], frozenset[str]]:
    """Replace Q and the DQ nodes that alone read it; equal DQ nodes behind one Q become one."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    pairs = {
        node.outputs[0]: readers[node.outputs[0]]
        for node in graph.nodes
        if node.op == "QuantizeLinear" and _fusible(node, readers.get(node.outputs[0], []), graph)
    }
    renamed = {other.outputs[0]: first.outputs[0] for first, *others in pairs.values() for other in others}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.outputs[0] in pairs:
            first = pairs[node.outputs[0]][0]
            inputs = tuple(renamed.get(name, name) for name in node.inputs)
            nodes.append(replace(node, op="FakeQuantize", inputs=inputs, outputs=first.outputs))
        elif not (node.op == "DequantizeLinear" and node.inputs[0] in pairs):
            nodes.append(replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)))
    return tuple(nodes), frozenset({*pairs, *renamed})


def _fusible(node: Node, after: list[Node], graph: Graph) -> bool:
    names = {name for other in after for name in other.outputs}
    if not after or node.outputs[0] == graph.output or (len(after) > 1 and graph.output in names):
        return False
    return all(_undoes(other, node, graph.constants) for other in after)


def _undoes(node: Node, quantizer: Node, constants: dict[str, Constant]) -> bool:
    same_axis = node.get("axis", 1) == quantizer.get("axis", 1)
    if node.op != "DequantizeLinear" or node.inputs[0] != quantizer.outputs[0] or not same_axis:
        return False
    if _at(node, 1, constants) is None:
        return False
    pairs = [(_at(node, i, constants), _at(quantizer, i, constants)) for i in (1, 2)]
    return all((a is None and b is None) or (a is not None and b is not None and _same(a, b)) for a, b in pairs)


def _same(a: Constant, b: Constant) -> bool:
    return a.tensor.dtype == b.tensor.dtype and torch.equal(a.tensor, b.tensor)


def _at(node: Node, index: int, constants: dict[str, Constant]) -> Constant | None:
    return constants.get(node.inputs[index]) if index < len(node.inputs) else None

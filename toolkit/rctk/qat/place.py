"""Where fake quantizers go: the graph made ready, the plan of the target, and the width of every tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from onnx import helper

from rctk.compress.step import Draft
from rctk.quantize.layers import WeightLayer, set_bias, weight_layers
from rctk_export.graph import Graph, Reader
from rctk_export.quantize import PLANNERS
from rctk_export.quantize.plan import MOVING, Plan, moves_exactly
from rctk_export.quantize.plan_cpu import clip_bounds
from rctk_export.shortcut import selects
from rctk_kernels.errors import OptionError

Edge = Literal["int8", "same", "float"]
POSITIVE = {"Relu", "Sigmoid", "Softmax"}
KEEPING = {"GlobalAveragePool", "AveragePool", *MOVING}
"""Operators that give no negative value where they read none."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One quantizer of activations.

    Attributes:
        low: Lowest code around real 0.
        high: Highest.
        bits: Width.
        thin: Whether only layers of the trained width read it; everything else has 8 bits.
    """

    low: int
    high: int
    bits: int
    thin: bool


@dataclass(frozen=True, kw_only=True)
class Places:
    """All decisions that do not depend on values.

    Attributes:
        draft: With the graph made ready: every layer has weight and bias of its own, and a layer of few bits that
            shares its input with other operators reads it through a node that changes nothing, to have its own grid.
        plan: Of that graph.
        layers: Layers to train, in the order of the graph.
        bits: Layer to width of its weight.
        spots: Tensor with a grid of its own to that grid's shape.
        training: The graph with one Identity per quantized use; hooks go behind these.
        hooks: Output of such an Identity to the tensor whose grid it has.
        inputs: Layer to the tensor whose grid its input has.
    """

    draft: Draft
    plan: Plan
    layers: tuple[WeightLayer, ...]
    bits: Mapping[str, int]
    spots: Mapping[str, Spot]
    training: onnx.ModelProto
    hooks: Mapping[str, str]
    inputs: Mapping[str, str]


def place(draft: Draft, *, weights: int, activations: int, edge_layers: Edge, target: str) -> Places:
    """Return where quantizers go; ``draft`` stays as it is."""
    found = _trained(draft)
    edges = {found[0].name, found[-1].name} if edge_layers != "same" else set()
    if edge_layers == "float":
        draft = replace(draft, keep_float=tuple(dict.fromkeys([*draft.keep_float, *sorted(edges)])))
    bits = {layer.name: 8 if layer.name in edges else weights for layer in found}
    thin = {layer.name for layer in found if layer.name not in edges and activations < 8}
    graph = Graph(_copy(draft.model))
    _own_constants(graph, found)
    _branch(graph, thin)
    plan = PLANNERS.build(target).plan(graph, draft.keep_float)
    for name in plan.saturating:
        _open_end(graph, name)
    spots = {tensor: _spot(graph, plan, tensor, thin, activations) for tensor in plan.calibrated()}
    draft = replace(draft, model=graph.finish())
    layers = tuple(_trained(draft))
    training, hooks, inputs = _training_graph(draft.model, plan, [layer.name for layer in layers])
    return Places(
        draft=draft,
        plan=plan,
        layers=layers,
        bits={layer.name: bits[layer.name] for layer in layers},
        spots=spots,
        training=training,
        hooks=hooks,
        inputs=inputs,
    )


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _trained(draft: Draft) -> list[WeightLayer]:
    """Return all layers but those that only select values."""
    graph = Graph(_copy(draft.model))
    moving = {node.name for node in graph.nodes if node.op_type == "Conv" and selects(graph, node)}
    found = [layer for layer in weight_layers(draft) if layer.name not in moving]
    if not found:
        raise OptionError("no layer of this model can be trained on a grid; keep fewer layers float")
    return found


def _own_constants(graph: Graph, layers: list[WeightLayer]) -> None:
    nodes = {node.name: node for node in graph.nodes}
    for layer in layers:
        graph.rewrite_constant(nodes[layer.name], 1, layer.weight)
        set_bias(graph, nodes[layer.name], layer.bias)


def _branch(graph: Graph, thin: set[str]) -> None:
    """Give layers of few bits a tensor of their own where others read the same values."""
    made: dict[str, str] = {}
    for node in [node for node in graph.nodes if node.name in thin]:
        tensor = node.input[0]
        if tensor not in made:
            if _read_by_thin_only(graph, tensor, thin):
                continue
            made[tensor] = graph.fresh(f"{tensor}.thin")
            inputs, op = [tensor], "Relu"
            if not never_negative(graph, tensor):
                ends = np.finfo(np.float32).min, np.finfo(np.float32).max
                inputs += [graph.add_constant(f"{tensor}.end", np.asarray(end, np.float32)) for end in ends]
                op = "Clip"
            graph.insert_before(node, [helper.make_node(op, inputs, [made[tensor]], name=made[tensor])])
        node.input[0] = made[tensor]


def _read_by_thin_only(graph: Graph, tensor: str, thin: set[str]) -> bool:
    maker = graph.producer(tensor)
    while maker is not None and _moves(graph, maker):
        tensor = maker.input[0]
        maker = graph.producer(tensor)
    if maker is not None and selects(graph, maker):
        return False
    return tensor not in graph.inputs and all(node.name in thin for node, _ in _ends(graph, tensor))


def _moves(graph: Graph, node: onnx.NodeProto) -> bool:
    return node.op_type in MOVING and moves_exactly(graph, node)


def _ends(graph: Graph, tensor: str) -> Iterator[Reader]:
    """Yield who reads the values of ``tensor``, also behind operators that only move them."""
    for reader in graph.readers(tensor):
        if _moves(graph, reader.node):
            yield from _ends(graph, reader.node.output[0])
        else:
            yield reader


def never_negative(graph: Graph, tensor: str) -> bool:
    """Tell whether the structure of the graph keeps ``tensor`` from being negative; images are not."""
    node = graph.producer(tensor)
    if node is None:
        return tensor in graph.inputs
    if node.op_type == "Clip":
        return clip_bounds(graph, node)[0] >= 0
    if node.op_type == "Add" and not any(name in graph.constants for name in node.input):
        return all(never_negative(graph, name) for name in node.input)
    if node.op_type in KEEPING or selects(graph, node):
        return never_negative(graph, node.input[0])
    return node.op_type in POSITIVE


def _open_end(graph: Graph, name: str) -> None:
    """Turn a Clip that saturation replaces into a Relu: its grid learns where to end."""
    node = next(node for node in graph.nodes if node.name == name)
    if node.op_type == "Clip":
        node.op_type = "Relu"
        del node.input[1:], node.attribute[:]


def _spot(graph: Graph, plan: Plan, source: str, thin: set[str], activations: int) -> Spot:
    """Return the grid of ``source``: few bits where only layers of few bits read it."""
    readers: list[Reader] = []
    for tensor in (tensor for tensor, other in plan.tensors.items() if other == source):
        chosen = plan.readers.get(tensor)
        own = [r for r in graph.readers(tensor) if chosen is None or (r.node.name, r.slot) in chosen]
        readers += [r for r in own if not _moves(graph, r.node)]
    few = bool(readers) and all(reader.node.name in thin for reader in readers)
    bits = activations if few else 8
    if never_negative(graph, source):
        high = 127 if plan.signed and bits == 8 else 2**bits - 1
        return Spot(low=0, high=high, bits=bits, thin=few)
    half = 2 ** (bits - 1)
    return Spot(low=-half, high=max(half - 1, 1), bits=bits, thin=few)


def _training_graph(
    model: onnx.ModelProto, plan: Plan, layers: list[str]
) -> tuple[onnx.ModelProto, dict[str, str], dict[str, str]]:
    graph = Graph(_copy(model))
    nodes = {node.name: node for node in graph.nodes}
    inputs = {name: plan.tensors[nodes[name].input[0]] for name in layers}
    hooks = {}
    for tensor, source in plan.tensors.items():
        if source != tensor and source in plan.tensors and source not in plan.readers:
            continue  # its values are on the grid already
        chosen, readers = plan.readers.get(tensor), graph.readers(tensor)
        readers = [r for r in readers if chosen is None or (r.node.name, r.slot) in chosen]
        if readers:
            out = graph.fresh(f"{tensor}.on_grid")
            node = helper.make_node("Identity", [tensor], [out], name=out)
            graph.insert_before(readers[0].node, [node])
            graph.replace_readers(tensor, out, readers)
            hooks[out] = source
    return graph.finish(), hooks, inputs

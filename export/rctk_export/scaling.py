"""Constant factors in front of convolutions move into their weights, and steps that change nothing go."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from rctk_export.graph import Graph, Reader, attributes
from rctk_export.shapes import shapes

NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}


def drop_neutral(graph: Graph) -> None:
    """Remove ``x + 0``, ``x - 0``, ``x * 1`` and ``x / 1``, such as the mean of a network that subtracts none."""
    found = shapes(graph)
    for node in [n for n in graph.nodes if n.op_type in NEUTRAL]:
        slot, value = _constant(graph, node)
        source, out = node.input[1 - slot], node.output[0]
        if value is None or (value != NEUTRAL[node.op_type]).any() or out in graph.outputs:
            continue
        if source in found and found[source] == found.get(out):  # it may broadcast
            graph.replace_readers(out, source)
            graph.remove(node)


def fold_scale(graph: Graph) -> None:
    """Multiply a constant factor per channel into the convolutions behind it; padding by zeros is not moved by it.

    The division by std of a normalisation is such a factor. What remains in front of the first layer then is the
    subtraction of the mean.
    """
    for node in [n for n in graph.nodes if n.op_type in {"Mul", "Div"}]:
        slot, value = _constant(graph, node)
        readers = graph.readers(node.output[0])
        if value is None or not readers or node.output[0] in graph.outputs or not np.isfinite(value).all():
            continue
        factor = value.astype(np.float64)
        if node.op_type == "Div":
            if (factor == 0).any():
                continue
            factor = 1 / factor
        scaled = [_scaled(graph, reader, factor) for reader in readers]
        if any(weight is None for weight in scaled):
            continue
        for reader, weight in zip(readers, scaled, strict=True):
            assert weight is not None
            graph.rewrite_constant(reader.node, 1, weight)
        graph.replace_readers(node.output[0], node.input[1 - slot])
        graph.remove(node)


def _constant(graph: Graph, node: onnx.NodeProto) -> tuple[int, npt.NDArray[np.generic] | None]:
    """Return which input of a binary node is its constant, and the value; None where neither or the divided one is."""
    slots = (1,) if node.op_type in {"Sub", "Div"} else (1, 0)
    for slot in slots:
        value = graph.constant(node, slot)
        if value is not None and node.input[1 - slot] not in graph.constants:
            return slot, value
    return 1, None


def _scaled(graph: Graph, reader: Reader, factor: npt.NDArray[np.float64]) -> npt.NDArray[np.float32] | None:
    """Return the weight ``(O, I, *K)`` of a reading convolution times ``factor`` per input channel, or None."""
    weight = graph.constant(reader.node, 1)
    if reader.node.op_type != "Conv" or reader.slot or weight is None:
        return None
    groups, spatial = attributes(reader.node).get("group", 1), weight.ndim - 2
    per_channel = factor.shape[-spatial - 1 :] if factor.ndim > spatial else ()
    if factor.size != 1 and (factor.size != weight.shape[1] * groups or per_channel != (factor.size, *[1] * spatial)):
        return None
    full = np.broadcast_to(factor.reshape(-1), (weight.shape[1] * groups,)).reshape(groups, -1)
    rows = np.repeat(full, len(weight) // groups, axis=0)  # (O, I): each output channel sees the inputs of its group
    made: npt.NDArray[np.float32] = (weight * rows.reshape(*rows.shape, *[1] * spatial)).astype(np.float32)
    return made

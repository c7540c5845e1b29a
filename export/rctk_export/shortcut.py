"""A shortcut that skips pixels and appends zero channels becomes a 1x1 convolution that selects.

Residual networks for CIFAR ("option A" of He et al., CVPR 2016) have it as ``Slice`` and ``Pad``. No runtime has these
in 8 bits on a CPU: the codes are turned to floats, padded and quantized again. The convolution moves the same codes in
one kernel. With few channels it costs next to nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper

from rctk_export.graph import Graph, attributes
from rctk_export.shapes import shapes

WIDEST = 128
"""Input channels up to which the products cost less than the copies, measured in int8."""


class _Shortcut(NamedTuple):
    nodes: list[onnx.NodeProto]
    source: str
    strides: dict[int, int]


def convolve_shortcuts(graph: Graph) -> None:
    """Turn ``Slice`` nodes of a stride and the ``Pad`` of channels behind them into one convolution each."""
    known = shapes(graph)
    for node in [n for n in graph.nodes if n.op_type == "Pad"]:
        found, pads = _shortcut(graph, node), _channel_pads(graph, node)
        shape = known.get(found.source, ()) if found is not None else ()
        width = shape[1] if len(shape) == 4 else None
        if found is None or pads is None or not isinstance(width, int) or width > WIDEST:
            continue
        weight = np.zeros((pads[0] + width + pads[1], width, 1, 1), dtype=np.float32)
        weight[pads[0] : pads[0] + width, :, 0, 0] = np.eye(width)
        out = node.output[0]
        inputs = [found.source, graph.add_constant(f"{out}.shortcut.weight", weight)]
        strides = [found.strides[2], found.strides[3]]
        conv = helper.make_node("Conv", inputs, [out], kernel_shape=[1, 1], pads=[0, 0, 0, 0], strides=strides)
        graph.insert_before(node, [conv])
        for dead in found.nodes:
            graph.remove(dead)


def _shortcut(graph: Graph, pad: onnx.NodeProto) -> _Shortcut | None:
    """Follow the input of ``pad`` back through Slice nodes that only step over the image plane."""
    nodes, tensor, strides = [pad], pad.input[0], {2: 1, 3: 1}
    node = graph.producer(tensor)
    while node is not None and node.op_type == "Slice":
        steps = _steps(graph, node)
        if steps is None or len(graph.readers(tensor)) != 1 or tensor in graph.outputs:
            return None
        for axis, step in steps.items():
            strides[axis] *= step
        nodes.append(node)
        tensor = node.input[0]
        node = graph.producer(tensor)
    return _Shortcut(nodes, tensor, strides) if max(strides.values()) > 1 else None


def _steps(graph: Graph, node: onnx.NodeProto) -> dict[int, int] | None:
    """Return axis to step of a Slice that takes every so many rows or columns from the first to the last."""
    parts = [graph.constant(node, i) for i in range(1, 5)]
    starts, ends, axes, steps = (None if part is None else part.reshape(-1).tolist() for part in parts)
    if starts is None or ends is None or axes is None or steps is None:
        return None
    if any(starts) or min(ends) < 2**31 - 1 or min(steps) < 1 or not set(axes) <= {2, 3}:
        return None
    return dict(zip(axes, steps, strict=True))


def _channel_pads(graph: Graph, node: onnx.NodeProto) -> tuple[int, int] | None:
    """Return how many zero channels a Pad puts in front and behind, or None where it does anything else."""
    pads, value = graph.constant(node, 1), graph.constant(node, 2)
    if pads is None or pads.size != 8 or (len(node.input) > 3 and node.input[3]):
        return None
    if attributes(node).get("mode", b"constant") != b"constant" or (value is not None and value.any()):
        return None
    front, behind = int(pads[1]), int(pads[5])
    others = [int(pads[i]) for i in (0, 2, 3, 4, 6, 7)]
    return None if any(others) or min(front, behind) < 0 else (front, behind)


def selects(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a convolution only selects: every output is one input, or zero."""
    weight = graph.constant(node, 1)
    if node.op_type != "Conv" or weight is None or (len(node.input) > 2 and node.input[2]):
        return False
    rows = weight.reshape(len(weight), -1)
    pointwise = set(weight.shape[2:]) == {1} and not any(attributes(node).get("pads", []))
    return bool(pointwise and ((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) <= 1).all())

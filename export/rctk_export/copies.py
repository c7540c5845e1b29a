"""What only copies: a gather that takes every value in its order, and a shape that is given back at once.

PyTorch's pooling to one pixel keeps the memory layout of what it pools, and the exporter spells that as ``as_strided``:
the flat tensor, read at indices that count through it. OpenVINO 2026.4 computes other values there.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx

from rctk_export.graph import Graph, attributes
from rctk_export.shapes import Shape, shapes


def drop_copies(graph: Graph) -> None:
    """Let readers of a gather that copies read the tensor itself."""
    known = shapes(graph)
    for node in [n for n in graph.nodes if n.op_type == "Gather"]:
        flat = graph.producer(node.input[0])
        if flat is None or flat.op_type != "Reshape" or node.output[0] in graph.outputs:
            continue
        shape = known.get(flat.input[0], ())
        size = graph.constant(flat, 1)
        if size is None or size.tolist() != [-1] or not shape:
            continue
        if not all(isinstance(side, int) for side in shape[1:]):
            continue
        if attributes(node).get("axis", 0) == 0 and _counts(graph, known, node.input[1], shape):
            graph.replace_readers(node.output[0], flat.input[0])
            graph.remove(node)


def merge_reshapes(graph: Graph) -> None:
    """Let only the last of several Reshape nodes in a row shape, and none where a linear layer's rows stay rows."""
    for node in [n for n in graph.nodes if n.op_type == "Reshape"]:
        size, maker = graph.constant(node, 1), graph.producer(node.input[0])
        if size is None or not size.all():
            continue  # 0 stands for a side of the very tensor that is read
        if maker is not None and maker.op_type == "Reshape":
            node.input[0] = maker.input[0]
            if not graph.readers(maker.output[0]) and maker.output[0] not in graph.outputs:
                graph.remove(maker)
        layer = graph.producer(node.input[0])
        weight = None if layer is None or layer.op_type != "Gemm" else graph.constant(layer, 1)
        if layer is None or weight is None or not attributes(layer).get("transB", 0):
            continue
        if size.tolist() == [-1, len(weight)] and node.output[0] not in graph.outputs:
            graph.replace_readers(node.output[0], node.input[0])
            graph.remove(node)


def _counts(graph: Graph, known: dict[str, Shape], indices: str, shape: Shape) -> bool:
    """Whether ``indices`` are 0, 1, 2, ... in ``shape``: the image's number times its size, plus a place in it."""
    add = graph.producer(indices)
    if add is None or add.op_type != "Add":
        return False
    slot = next((i for i in (0, 1) if graph.constant(add, i) is not None), None)
    if slot is None:
        return False
    places, count = graph.constant(add, slot), prod(int(side) for side in shape[1:])
    assert places is not None
    if places.shape not in {shape[1:], (1, *shape[1:])} or places.reshape(-1).tolist() != list(range(count)):
        return False
    wide = graph.producer(add.input[1 - slot])
    axes = None if wide is None or wide.op_type != "Unsqueeze" else graph.constant(wide, 1)
    if wide is None or axes is None or sorted(axes.tolist()) != list(range(1, len(shape))):
        return False
    return _is_starts(graph, known, wide.input[0], (shape[0], count))


def _is_starts(graph: Graph, known: dict[str, Shape], starts: str, images: tuple[int | str, int]) -> bool:
    """Whether ``starts`` is the number of each of ``images`` (how many, size) times its size."""
    number, size = graph.producer(starts), 1
    if number is not None and number.op_type == "Mul":
        factor = next((graph.constant(number, i) for i in (0, 1) if graph.constant(number, i) is not None), None)
        size = 0 if factor is None or factor.size != 1 else int(factor.reshape(-1)[0])
        number = graph.producer(next(name for name in number.input if name not in graph.constants))
    if number is None or number.op_type != "Range" or size != images[1]:
        return False
    begin, step = graph.constant(number, 0), graph.constant(number, 2)
    plain = begin is not None and step is not None and not begin.any() and bool(np.all(step == 1))
    return plain and _length(graph, known, number.input[1]) == images[0]


def _length(graph: Graph, known: dict[str, Shape], tensor: str) -> int | str | None:
    """Return the first dimension that ``tensor`` holds, None where it holds anything else."""
    node: onnx.NodeProto | None = graph.producer(tensor)
    if node is not None and node.op_type == "Squeeze":
        node = graph.producer(node.input[0])
    if node is None or node.op_type != "Shape":
        return None
    settings, shape = attributes(node), known.get(node.input[0], ())
    return shape[0] if shape and settings.get("start", 0) == 0 and settings.get("end") == 1 else None

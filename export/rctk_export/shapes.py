"""Shapes of the tensors of a graph, as far as inference knows them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx

from rctk_export.graph import Graph, attributes

Shape = tuple[int | str, ...]


def shapes(graph: Graph) -> dict[str, Shape]:
    """Return the shape of every tensor of the model behind ``graph`` as it was read; a free dimension is its name."""
    inferred = onnx.shape_inference.infer_shapes(graph.model)
    infos = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    return {
        info.name: tuple(dim.dim_value or dim.dim_param for dim in info.type.tensor_type.shape.dim)
        for info in infos
        if info.type.tensor_type.HasField("shape")
    }


def flattens(graph: Graph, known: Mapping[str, Shape], node: onnx.NodeProto) -> bool:
    """Whether ``node`` turns ``(N, C, ...)`` into ``(N, everything else)``, so that channels stay together in order.

    Args:
        graph: Holds ``node``.
        known: Its :func:`shapes`.
        node: Of any kind; a Reshape may as well make rows of something else, such as tokens.
    """
    if node.op_type == "Flatten":
        return int(attributes(node).get("axis", 1)) == 1
    size = graph.constant(node, 1) if node.op_type == "Reshape" else None
    if size is None or size.size != 2:
        return False
    first, second = (int(side) for side in size)
    shape = known.get(node.input[0], ())
    if (first == 0 and not attributes(node).get("allowzero", 0)) or (shape and first == shape[0]):
        return True
    rest = [side for side in shape[1:] if isinstance(side, int)]
    return first == -1 and bool(shape) and len(rest) == len(shape) - 1 and second == prod(rest)

"""Shapes of the tensors of a graph, as far as inference knows them."""

from __future__ import annotations

import onnx

from rctk_export.graph import Graph

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

"""A half-precision graph becomes a float32 graph with the same weights."""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, numpy_helper

from rctk_export.onnx_files import all_graphs

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
_TYPE_ATTRIBUTES = {"to", "dtype", "output_dtype", "stash_type"}


def widen(model: ModelProto, told: list[str]) -> None:
    """Turn every float16 tensor of ``model`` into float32, in place, and add a note to ``told`` if there was one."""
    found = [_widen_graph(graph) for graph in all_graphs(model.graph)]
    if any(found):
        told.append("float16 became float32: intermediate results are no longer rounded to half precision")


def _widen_graph(graph: GraphProto) -> bool:
    found = False
    for tensor in graph.initializer:
        found |= _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == HALF:
            value.type.tensor_type.elem_type = FLOAT
            found = True
    for node in graph.node:
        for attribute in node.attribute:
            found |= _widen_attribute(attribute)
    return found


def _widen_attribute(attribute: AttributeProto) -> bool:
    if attribute.type == AttributeProto.TENSOR:
        return _widen_tensor(attribute.t)
    if attribute.type == AttributeProto.INT and attribute.name in _TYPE_ATTRIBUTES and attribute.i == HALF:
        attribute.i = FLOAT
        return True
    return False


def _widen_tensor(tensor: TensorProto) -> bool:
    if tensor.data_type != HALF:
        return False
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    return True

"""A graph for a fixed number of images becomes one for any number, where that changes no answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from rctk_export.graph import Graph
from rctk_export.run_once import example_images, run_once
from rctk_kernels.errors import GraphError

TOLERANCE, QUANTIZED_TOLERANCE = 1e-3, 0.1
"""Largest difference as a share of the largest logit; in an int8 graph another summation order can flip a code."""


def free_batch(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Return ``model`` with a dynamic batch, and a note where its batch had to stay fixed.

    Reshapes to a constant shape that starts with the batch size are rewritten, and the result must give every image the
    answer that it had before, also in a batch of another size.

    Args:
        model: One float32 input ``(B, C, H, W)`` with fixed image size and one output; it is not changed.
    """
    declared = model.graph.input[0].type.tensor_type.shape.dim[0]
    size = declared.dim_value if declared.dim_value > 0 else 1
    images = example_images(model, size + 1)
    images[-1] = images[0]
    fixed = _with_batch(model, size)
    expected = run_once(fixed, images[:size])
    for keep_first in (None, False, True):
        candidate = _with_batch(model if keep_first is None else _rewritten(model, size, copy_first=keep_first), None)
        if _same_rows(candidate, images, expected):
            return candidate, ""
    return fixed, f"the batch stays fixed at {size}: other sizes change the answers; export with a dynamic batch"


def _same_rows(model: onnx.ModelProto, images: npt.NDArray[Any], expected: npt.NDArray[np.float32]) -> bool:
    """Return whether the first rows are as expected and the last image, a copy of the first, has its answer."""
    try:
        found = run_once(model, images)
    except GraphError:
        return False
    if found.shape != (len(images), *expected.shape[1:]):
        return False
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    allowed = (QUANTIZED_TOLERANCE if quantized else TOLERANCE) * float(np.abs(expected).max(initial=1e-6))
    difference = np.abs(found - np.concatenate([expected, expected[:1]]))
    return bool(difference.max(initial=0.0) <= allowed)


def _with_batch(model: onnx.ModelProto, size: int | None) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]  # they may repeat the old size
    for end in (*copy.graph.input, *copy.graph.output):
        dims = end.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            if size is None:
                dims[0].dim_param = "batch"
            else:
                dims[0].dim_value = size
    return copy


def _rewritten(model: onnx.ModelProto, size: int, *, copy_first: bool) -> onnx.ModelProto:
    """Let every Reshape to ``(size, ...)`` copy its first dimension (0), or infer it (-1) where nothing else is."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    for node in graph.nodes:
        shape = graph.constant(node, 1) if node.op_type == "Reshape" else None
        if shape is None or not shape.size or shape[0] != size or node.input[0] in graph.constants:
            continue
        if not copy_first and (shape == -1).any():
            continue
        new = np.concatenate([[0 if copy_first else -1], shape[1:]]).astype(np.int64)
        tensor = copy.graph.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(new, f"{node.output[0]}.any_batch"))
        node.input[1] = tensor.name
    return copy

"""Which layers have weights of the 2:4 pattern that sparse tensor cores need.

In every group of 4 consecutive values along the input channels at least 2 are zero (NVIDIA, "Accelerating Inference
with Sparsity Using the Ampere Architecture and TensorRT", 2021). Codes of a symmetric format keep zeros.
"""

from __future__ import annotations

import numpy as np
import onnx

from rctk_export.graph import attributes
from rctk_export.lint.view import View, label


def sparse_layers(model: onnx.ModelProto) -> dict[str, bool]:
    """Return for every Conv and linear layer with stored weights whether they are 2:4 sparse.

    Example:
        >>> w = onnx.numpy_helper.from_array(np.array([[1.0, 0, 0, 2]] * 2, np.float32), "w")
        >>> node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"], name="fc", transB=1)
        >>> x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])
        >>> graph = onnx.helper.make_graph([node], "g", [x], [], [w])
        >>> sparse_layers(onnx.helper.make_model(graph))
        {'fc': True}
    """
    view = View(model)
    found = {}
    for layer in view.layers:
        weight = view.graph.constants.get(view.root(layer.input[1]))
        if weight is None or layer.op_type == "ConvTranspose" or weight.ndim < 2:
            continue
        axis = 1 if layer.op_type == "Conv" or attributes(layer).get("transB", 0) else weight.ndim - 2
        found[label(layer)] = _sparse(np.moveaxis(weight, axis, -1))
    return found


def _sparse(weight: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bool:
    if weight.shape[-1] % 4:
        return False
    groups = weight.reshape(-1, 4)
    return bool(((groups == 0).sum(axis=1) >= 2).all())

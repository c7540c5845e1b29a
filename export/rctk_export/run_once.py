"""Run a graph once, node by node, to check what was done to it; engines are for everything else."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from rctk_export.onnx_files import serialize
from rctk_kernels.errors import GraphError


def run_once(model: onnx.ModelProto, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the first output of ``model`` for its only input, from ONNX Runtime without optimisation, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        session = ort.InferenceSession(serialize(model), options, providers=["CPUExecutionProvider"])
        found = session.run(None, {session.get_inputs()[0].name: images})[0]
    except Exception as error:  # onnxruntime raises a class of its own per status code
        reason = " ".join(str(error).split())[:300]
        raise GraphError(f"ONNX Runtime cannot run the model: {reason}; export it with standard operators") from error
    return cast("npt.NDArray[Any]", found)


def example_images(model: onnx.ModelProto, count: int) -> npt.NDArray[Any]:
    """Return ``count`` random images of the declared size for ``model``, in [0, 1], or pixels where it reads uint8."""
    tensor = model.graph.input[0].type.tensor_type
    shape = (count, *(dim.dim_value for dim in tensor.shape.dim[1:]))
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    return (images * 255).astype(np.uint8) if tensor.elem_type == onnx.TensorProto.UINT8 else images

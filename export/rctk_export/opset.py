"""Graphs of old opsets become graphs of a new one, with the same answers."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, helper

from rctk_export.run_once import example_images, run_once
from rctk_kernels.errors import GraphError

OLDEST_OPSET, PER_CHANNEL_OPSET, OPSET = 7, 13, 20
AGAIN = f"export the model with opset {OPSET}"


def new_enough(model: ModelProto, told: list[str]) -> ModelProto:
    """Return a graph of opset 13 or newer; one that had to be converted must give the same answers as before."""
    opset = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 0)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise GraphError(f"opset {opset} is outside {OLDEST_OPSET} to {newest}; {AGAIN}")
    if opset >= PER_CHANNEL_OPSET:
        return model
    converted = _converted(model, opset)
    images = example_images(model, max(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value, 1))
    before, after = run_once(model, images), run_once(converted, images)
    allowed = 1e-3 * float(np.abs(before).max(initial=1e-6))
    if before.shape != after.shape or not np.allclose(before, after, rtol=0, atol=allowed):
        raise GraphError(f"converting opset {opset} to {OPSET} changes the answers; {AGAIN}")
    told.append(f"opset {opset} was converted to {OPSET}")
    return converted


def _converted(model: ModelProto, opset: int) -> ModelProto:
    try:
        converted = onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises RuntimeError and classes of its own
        reason = " ".join(str(error).split())[:200]
        raise GraphError(f"opset {opset} cannot be converted to {OPSET} ({reason}); {AGAIN}") from error
    converted.ir_version = max(model.ir_version, helper.find_min_ir_version_for(list(converted.opset_import)))
    return converted

"""Which operators an ``OnnxModule`` knows, and how one is found."""

from __future__ import annotations

from collections.abc import Callable

from rctk_export.onnx_module.coded import coded
from rctk_export.onnx_module.node import Node, Op
from rctk_export.onnx_module.ops_conv import LAYERS
from rctk_export.onnx_module.ops_gather import GATHERING
from rctk_export.onnx_module.ops_math import MATH
from rctk_export.onnx_module.ops_resample import RESAMPLING
from rctk_export.onnx_module.ops_shape import SHAPES
from rctk_export.onnx_module.quantized import QUANTIZED
from rctk_kernels.errors import GraphError, UnsupportedOperatorError

OPERATORS: dict[str, Callable[[Node], Op]] = {**MATH, **LAYERS, **SHAPES, **GATHERING, **RESAMPLING, **QUANTIZED}
"""ai.onnx operator to the function that reads its attributes and returns a torch function."""

MICROSOFT = {"QuantizeLinear", "DequantizeLinear", "Gelu"}
"""com.microsoft operators that mean the same as those of ai.onnx."""

MANY_OUTPUTS = {"Split", "DynamicQuantizeLinear"}


def build(node: Node) -> Op:
    """Return the torch function of ``node``; :class:`UnsupportedOperatorError` names what is not known."""
    known = node.op in OPERATORS if node.domain == "" else node.domain == "com.microsoft" and node.op in MICROSOFT
    if not known:
        what = node.op if not node.domain else f"{node.domain}.{node.op}"
        raise UnsupportedOperatorError(
            f"ONNX operator {what} (node {node.name or node.outputs[0]!r}) is not known to rctk; "
            "replace it by standard operators in the model, or add a function for it to onnx_module/operators.py"
        )
    if node.op not in MANY_OUTPUTS and len(node.outputs) > 1:
        raise node.refuse(f"its output {node.outputs[1]!r} is used, only the first one is computed")
    try:
        function = OPERATORS[node.op](node)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise GraphError(f"{node.where} is malformed ({error!r}); check the file with onnx.checker") from error
    return coded(node, function) if node.settings.coded else function

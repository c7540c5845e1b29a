"""What ONNX Runtime makes of a graph: the optimised graph itself, and the layers that stay float in it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import onnx
import onnxruntime as ort

from rctk_export.lint.view import label
from rctk_export.onnx_files import load_onnx, serialize
from rctk_kernels.errors import EngineError

FLOAT_OPERATORS = {"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
INT8_OPERATORS = {
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "ConvInteger",
    "MatMulInteger",
    "MatMulNBits",
}


class FusionReport(NamedTuple):
    """How the layers of a graph run after optimisation."""

    int8: tuple[str, ...]
    """Names of the layers that run on integers."""
    float: tuple[str, ...]
    """Names of the layers that run in float."""


def optimised_graph(model: bytes, *, threads: int = 1, provider: str = "CPUExecutionProvider") -> onnx.ModelProto:
    """Return the graph that ONNX Runtime runs for ``model`` on this machine, all optimisations on.

    Args:
        model: Content of an ONNX file without external data.
        threads: Of the session that optimises; the graph does not depend on it.
        provider: Execution provider, installed.
    """
    if provider not in ort.get_available_providers():
        raise EngineError(
            f"ONNX Runtime has no {provider} here; choose from {', '.join(ort.get_available_providers())}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # it warns that the file is for this machine only, which is the point
        try:
            ort.InferenceSession(model, options, providers=[provider])
        except Exception as error:  # onnxruntime raises a class of its own per status code
            raise EngineError(f"ONNX Runtime cannot load the model: {str(error).splitlines()[0]}") from error
        return load_onnx(path)


def float_layers(optimised: onnx.ModelProto) -> list[str]:
    """Return the names of the layers of an optimised graph that still run in float.

    Example:
        >>> graph = onnx.helper.make_graph([onnx.helper.make_node("Gemm", ["x", "w"], ["y"], name="fc")], "g", [], [])
        >>> float_layers(onnx.helper.make_model(graph))
        ['fc']
    """
    floats = [label(node) for node in optimised.graph.node if node.op_type in FLOAT_OPERATORS]
    return [name.removeprefix("fused ") for name in floats]  # what it prefixes when it takes in an activation


def fusion_report(
    model: onnx.ModelProto | bytes | Path, *, provider: str = "CPUExecutionProvider", threads: int = 1
) -> FusionReport:
    """Optimise ``model``, or the file at that path, and count its layers by arithmetic."""
    proto = load_onnx(model) if isinstance(model, Path) else model
    content = proto if isinstance(proto, bytes) else serialize(proto)
    optimised = optimised_graph(content, threads=threads, provider=provider)
    return FusionReport(
        int8=tuple(label(node) for node in optimised.graph.node if node.op_type in INT8_OPERATORS),
        float=tuple(float_layers(optimised)),
    )

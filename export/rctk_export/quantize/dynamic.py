"""Dynamic int8: stored int8 weights, activation grids that are computed from every batch as it comes.

ONNX Runtime's own tool writes these files. One grid serves a whole batch, so what an image gets depends a little on the
images beside it; a twin sees the same batches and agrees.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import onnx

from rctk_export.onnx_files import load_onnx
from rctk_kernels.errors import EngineUnavailableError, OptionError

PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")
"""What ONNX Runtime writes into a graph that needs no further clean-up; ours is clean."""
INTEGER = {"MatMulInteger", "ConvInteger"}


def write_dynamic(model: onnx.ModelProto, keep_float: Sequence[str] = ()) -> onnx.ModelProto:
    """Return a copy of a float graph whose convolutions and linear layers multiply integers.

    Args:
        model: A simplified float graph.
        keep_float: Names of layers to leave in float.

    Raises:
        OptionError: No layer is left to quantize.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415  # only this form needs it
    except ImportError as error:
        raise EngineUnavailableError(
            "dynamic int8 needs ONNX Runtime; install it with `pip install 'rctk[ort]'`"
        ) from error
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.metadata_props.add(key=PREPARED[0], value=PREPARED[1])
    with tempfile.TemporaryDirectory(prefix="rctk-") as folder:
        path = Path(folder) / "dynamic.onnx"
        quantize_dynamic(
            copy,
            path,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=list(keep_float),
            weight_type=QuantType.QInt8,
        )
        made = load_onnx(path)
    if not any(node.op_type in INTEGER for node in made.graph.node):
        raise OptionError("dynamic int8 finds no convolution or linear layer to quantize; keep fewer layers float")
    del made.metadata_props[:]
    _name_layers(made, {node.name for node in model.graph.node})
    return made


def _name_layers(made: onnx.ModelProto, layers: Collection[str]) -> None:
    """Give integer products the names of the layers that they compute; the tool appends words to them."""
    for node in made.graph.node:
        if node.op_type in INTEGER:
            name = node.name.removesuffix("_quant")
            node.name = next((known for known in (name, name.removesuffix("_MatMul")) if known in layers), node.name)

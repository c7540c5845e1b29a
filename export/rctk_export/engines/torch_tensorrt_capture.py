"""An ONNX file as the exported program that torch-tensorrt compiles, Q/DQ as the operator that it converts.

torch-tensorrt reads int8 from ``torch.ops.tensorrt.quantize_op`` of nvidia-modelopt: quantize and dequantize in one,
symmetric, given the largest value ``amax`` that stands for code 127.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from rctk_export.exportable import ExportableModule
from rctk_export.onnx_module.graph import Graph, read_graph
from rctk_export.onnx_module.node import Settings
from rctk_export.quantize_operators import Grid
from rctk_kernels.errors import EngineError, GraphError

TOP = 127
LINEARS = {"QuantizeLinear", "DequantizeLinear"}


class Batches(NamedTuple):
    """Fewest, tuned-for and most images of a run."""

    low: int
    tuned: int
    high: int


class QuantizeOp:
    """``tensorrt::quantize_op`` for every pair of QuantizeLinear and DequantizeLinear.

    TensorRT gets its scale as ``amax / 127``: with ``amax = 127 * scale`` in float32 that is the scale of the file or
    a neighbouring float, one unit in the last place away.

    Args:
        operator: The operator; that of nvidia-modelopt, which must be imported, by default.
        dtype: Of the weights that come out.
    """

    def __init__(self, operator: Any = None, dtype: torch.dtype = torch.float32) -> None:
        self._operator = torch.ops.tensorrt.quantize_op if operator is None else operator
        self._dtype = dtype

    def quantize(self, x: Tensor, grid: Grid) -> Tensor:
        """Return values on the grid: the operator dequantizes as well."""
        _refuse(grid)
        return self._pair(x, grid)

    def dequantize(self, codes: Tensor, grid: Grid) -> Tensor:
        """Return values on the grid, or a constant's pair: TensorRT folds it into int8 weights."""
        _refuse(grid)
        if codes.dtype != torch.int8:
            return codes
        scale = _along(grid, codes.ndim) if isinstance(grid.scale, Tensor) else grid.scale
        return self._pair((codes.to(torch.float32) * scale).to(self._dtype), grid)

    def _pair(self, x: Tensor, grid: Grid) -> Tensor:
        if isinstance(grid.scale, Tensor):
            amax = _along(grid, x.ndim) * TOP
        else:
            amax = torch.full((), grid.scale * TOP, dtype=torch.float32, device=x.device)
        values: Tensor = self._operator(x, amax, 8, 0, False, False)  # 8 bits, no exponent, signed, from -128
        return values


class HalfPrecision(nn.Module):
    """Everything between images and logits in float16, except the scales of quantizers.

    Args:
        inside: The module.
        scales: Names of its buffers that are scales.
    """

    def __init__(self, inside: nn.Module, scales: frozenset[str]) -> None:
        super().__init__()
        self.inside = inside
        for name, buffer in list(inside.named_buffers()):
            if buffer.dtype == torch.float32 and name not in scales:
                inside.register_buffer(name, buffer.half())

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 logits ``(N, K)`` of float32 images."""
        logits: Tensor = self.inside(images.half())
        return logits.float()


def torch_module(model: onnx.ModelProto, example: Tensor, *, half: bool = False, operator: Any = None) -> nn.Module:
    """Return ``model`` as plain torch operators and ``quantize_op``.

    Args:
        model: Float, or quantized with zero points 0 and one scale per tensor or per output channel.
        example: ``(N, C, H, W)`` images.
        half: Compute in float16.
        operator: See :class:`QuantizeOp`; not needed for float files.
    """
    quantized = any(node.op_type in LINEARS for node in model.graph.node)
    given = operator if quantized or operator is not None else torch.nn.Identity()
    pairs = QuantizeOp(given, torch.float16 if half else torch.float32)
    _refuse_zero_points(read_graph(model, Settings()))
    inside = ExportableModule(model, example, pairs)
    scales = {node.input[1] for node in model.graph.node if node.op_type in LINEARS}
    kept = frozenset(buffer for name, buffer in inside.buffer_names.items() if name in scales)
    return HalfPrecision(inside, kept) if half else inside


def capture(module: nn.Module, example: Tensor, batches: Batches) -> ExportedProgram:
    """Export ``module`` for ``batches``; :class:`EngineError` where its graph takes one batch size only.

    Args:
        module: From :func:`torch_module`.
        example: Images as many as the most of ``batches``.
        batches: Numbers of images.
    """
    dynamic = ({0: Dim("batch", min=batches.low, max=batches.high)},) if batches.low < batches.high else None
    try:
        return torch.export.export(module.eval(), (example,), dynamic_shapes=dynamic, strict=False)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EngineError(
            f"torch.export cannot capture the file for {batches.low} to {batches.high} images ({reason}); give "
            "min_batch, opt_batch and max_batch the same number"
        ) from error


def _along(grid: Grid, rank: int) -> Tensor:
    """Return the scales with the shape that ``quantize_op`` reads its axis from: ``(O, 1, ...)``."""
    assert isinstance(grid.scale, Tensor)
    return grid.scale.reshape(-1, *[1] * (rank - 1))


def _refuse(grid: Grid) -> None:
    if (grid.low, grid.high) != (-TOP - 1, TOP) or grid.axis not in {None, 0}:
        raise GraphError(
            f"a quantizer has codes {grid.low} to {grid.high} and scales along axis {grid.axis}; torch-tensorrt takes "
            "int8 and scales along axis 0 only, use the file for --target tensorrt"
        )


def _refuse_zero_points(graph: Graph) -> None:
    for node in graph.nodes:
        zero = node.constant(2) if node.op in LINEARS else None
        if zero is not None and zero.tensor.any():
            raise GraphError(f"{node.where}: its zero point is not 0; TensorRT wants that, use --target tensorrt")

"""The torch operators that stand for QuantizeLinear and DequantizeLinear, and the grids and codes that they work on."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from onnx import TensorProto
from torch import Tensor

from rctk_export.onnx_module.node import Constant, Node


class Grid(NamedTuple):
    """Which values int8 codes stand for: ``(code - zero) * scale``.

    Attributes:
        scale: A number, or ``(C,)`` float32 along ``axis``.
        zero: Zero points: a number, or ``(C,)`` int64.
        axis: None for one grid per tensor.
        low: Lowest code of the format.
        high: Highest code.
    """

    scale: float | Tensor
    zero: int | Tensor
    axis: int | None = None
    low: int = -128
    high: int = 127


class Quantizers(Protocol):
    """Which torch operators stand for QuantizeLinear and DequantizeLinear."""

    def quantize(self, x: Tensor, grid: Grid) -> Tensor:
        """Return what goes into :meth:`dequantize`: int8 codes, or values on the grid if codes are none of yours."""
        ...

    def dequantize(self, codes: Tensor, grid: Grid) -> Tensor:
        """Return real values; of constants ``codes`` is an int8 buffer, else what :meth:`quantize` gave."""
        ...


class Decomposed:
    """``torch.ops.quantized_decomposed``: what PyTorch's own flow emits and ExecuTorch reads."""

    def __init__(self) -> None:
        from torch.ao.quantization.fx import _decomposed  # noqa: F401, PLC0415  # it registers the operators

        self._ops: Any = torch.ops.quantized_decomposed

    def quantize(self, x: Tensor, grid: Grid) -> Tensor:
        """Return int8 codes; PyTorch multiplies by the reciprocal of the scale."""
        run = self._ops.quantize_per_tensor if grid.axis is None else self._ops.quantize_per_channel
        codes: Tensor = run(x, *_placed(grid), grid.low, grid.high, torch.int8)
        return codes

    def dequantize(self, codes: Tensor, grid: Grid) -> Tensor:
        """Return float32 values."""
        run = self._ops.dequantize_per_tensor if grid.axis is None else self._ops.dequantize_per_channel
        values: Tensor = run(codes, *_placed(grid), grid.low, grid.high, torch.int8)
        return values


def _placed(grid: Grid) -> tuple[Any, ...]:
    return (grid.scale, grid.zero) if grid.axis is None else (grid.scale, grid.zero, grid.axis)


def made_kind(node: Node) -> int:
    """Return the type of the codes that a QuantizeLinear makes."""
    zero = node.constant(2)
    return int(node.get("output_dtype", 0)) or (zero.kind if zero else TensorProto.UINT8)


def stored_kind(node: Node, constants: dict[str, Constant]) -> int:
    """Return the type of the codes that a DequantizeLinear reads: that of the constant, or of its zero point."""
    for index in (0, 2):
        if node.has(index) and node.inputs[index] in constants:
            return constants[node.inputs[index]].kind
    return int(TensorProto.UINT8)

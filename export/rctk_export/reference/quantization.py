"""QuantizeLinear and DequantizeLinear: the only doors between reals and codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from rctk_export.reference.values import Array, Coded, Node, Operator, Value, plain, real
from rctk_kernels.errors import GraphError, QuantizationError, UnsupportedOperatorError
from rctk_kernels.qparams import QParams, quantize

WIDTHS: dict[int, tuple[int, bool]] = {
    TensorProto.INT2: (2, True),
    TensorProto.UINT2: (2, False),
    TensorProto.INT4: (4, True),
    TensorProto.UINT4: (4, False),
    TensorProto.INT8: (8, True),
    TensorProto.UINT8: (8, False),
    TensorProto.INT16: (16, True),
    TensorProto.UINT16: (16, False),
    TensorProto.INT32: (32, True),
}
"""Bits and sign of the types that a zero point can have."""


def bind_grid(node: Node, constants: Mapping[str, Array], types: Mapping[str, int]) -> Node:
    """Read scale and zero point of a Q or DQ node once; what is left as input is the tensor itself.

    Args:
        node: QuantizeLinear or DequantizeLinear.
        constants: Arrays of the graph by name.
        types: ONNX data types of the constants.
    """
    if node.get("block_size", 0):
        raise UnsupportedOperatorError(f"{node.op} {node.name!r} has blocked scales; use one per tensor or per channel")
    tensor, scale, zero = (*node.inputs, "")[:3]
    for name in (scale, zero):
        if name and name not in constants:
            raise GraphError(f"{node.op} {node.name!r} computes {name!r}; scale and zero point must be constants")
    kind = types[zero] if zero else node.get("output_dtype", 0) or types.get(tensor, TensorProto.UINT8)
    if kind not in WIDTHS:
        word = TensorProto.DataType.Name(kind)
        raise UnsupportedOperatorError(f"{node.op} {node.name!r} uses {word}; rctk runs integer codes of 2 to 32 bits")
    bits, signed = WIDTHS[kind]
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    try:
        grid = QParams(constants[scale], constants.get(zero, 0), low, high, axis=int(node.get("axis", 1)))
    except QuantizationError as error:
        raise QuantizationError(f"{node.op} {node.name!r}: {error}") from error
    return dataclasses.replace(node, inputs=(tensor,), grid=grid)


def quantize_linear(node: Node, x: Value) -> Value:
    """Round reals to codes."""
    assert node.grid is not None
    kind = np.min_scalar_type(node.grid.low if node.grid.low < 0 else node.grid.high)
    return quantize(real(x), node.grid).astype(kind)


def dequantize_linear(node: Node, codes: Value) -> Value:
    """Say what codes stand for, without computing it yet."""
    assert node.grid is not None
    grid, array = node.grid, plain(codes)
    axis = None if grid.axis is None else grid.axis % array.ndim
    return Coded(array, grid.on_axis(axis))


OPERATORS: dict[str, Operator] = {"QuantizeLinear": quantize_linear, "DequantizeLinear": dequantize_linear}

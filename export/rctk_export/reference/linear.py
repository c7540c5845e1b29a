"""Weighted sums: exact on codes, float64 on reals."""

from __future__ import annotations

import numpy as np

from rctk_export.reference.values import Coded, Node, Operator, Value, moved, real, shape_of
from rctk_export.reference.windows import window_of
from rctk_kernels.linear import conv2d, correlate, matmul
from rctk_kernels.qparams import Real
from rctk_kernels.requantize import rescale


def conv(node: Node, x: Value, w: Value, bias: Value | None = None) -> Value:
    """Conv over two dimensions."""
    window = window_of(node, shape_of(x), shape_of(w)[2:])
    groups = int(node.get("group", 1))
    if isinstance(x, Coded) and isinstance(w, Coded) and x.q.axis is None and w.q.axis in {None, 0}:
        sums = conv2d(
            x.codes,
            w.codes,
            stride=window.stride,
            padding=window.padding,
            dilation=window.dilation,
            groups=groups,
            zero_x=int(x.q.origin),
            zero_w=w.q.origin,
        )
        y = rescale(sums, (x.q.step * w.q.step).reshape(-1, 1, 1))
    else:
        y = correlate(real(x), real(w), window, groups=groups)
    return y if bias is None else np.asarray(y + real(bias).reshape(-1, 1, 1))


def gemm(node: Node, a: Value, b: Value, c: Value | None = None) -> Value:
    """``alpha * a @ b + beta * c``, either operand transposed on demand."""
    a = transposed(a, (1, 0)) if node.get("transA", 0) else a
    b = transposed(b, (1, 0)) if node.get("transB", 0) else b
    y = float(node.get("alpha", 1.0)) * product(a, b)
    return y if c is None else y + float(node.get("beta", 1.0)) * real(c)


def product(a: Value, b: Value) -> Real:
    """``a @ b`` over the last two dimensions; exact where both are codes and no scale varies along the sum."""
    if isinstance(a, Coded) and isinstance(b, Coded) and a.q.axis is None and b.q.axis in {None, b.codes.ndim - 1}:
        sums = matmul(a.codes, b.codes, zero_a=a.q.origin, zero_b=b.q.origin)
        return rescale(sums, a.q.step * b.q.step)
    return np.asarray(real(a) @ real(b))


def transposed(x: Value, order: tuple[int, ...]) -> Value:
    """Reorder dimensions; a grid along an axis goes where the axis goes."""
    if isinstance(x, Coded) and x.q.axis is not None:
        return Coded(x.codes.transpose(order), x.q.on_axis(order.index(x.q.axis)))
    return moved(x, lambda array: array.transpose(order))


def transpose(node: Node, x: Value) -> Value:
    """Transpose; reverses all dimensions by default."""
    return transposed(x, tuple(node.get("perm", range(len(shape_of(x)))[::-1])))


def einsum(node: Node, *operands: Value) -> Value:
    """Einsum on reals."""
    return np.asarray(np.einsum(node.attributes["equation"], *[real(x) for x in operands]))


OPERATORS: dict[str, Operator] = {
    "Conv": conv,
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": lambda _, a, b: product(a, b),
    "Transpose": transpose,
}

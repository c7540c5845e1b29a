"""Exact mode: the integer arithmetic of the reference engine, in float64 tensors.

A value is *real* (a float64 tensor) or *codes* (what a DequantizeLinear gave). Two operands that are both codes
multiply as integers; their exact sum meets the product of the scales, then the bias. Float64 holds every integer
below 2**53, so the sums do not depend on their order. Gradients pass as in fast mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rctk_export.onnx_module.node import Node, Op
from rctk_export.onnx_module.ops_conv import gemm_product, window_sums
from rctk_export.onnx_module.quantized import along, quantizer_axis


class Codes(NamedTuple):
    """Integers and the grid that gives them a value: ``(q - zero) * scale``.

    Attributes:
        q: Integer-valued float64.
        scale: One value, or one per channel along ``axis``.
        zero: Likewise.
        axis: None for one scale per tensor.
    """

    q: Tensor
    scale: Tensor
    zero: Tensor
    axis: int | None

    def centred(self) -> Tensor:
        """Return ``q - zero``."""
        return self.q - along(self.zero, self.q.ndim, self.axis)

    def real(self) -> Tensor:
        """Return the value that the codes stand for."""
        return self.centred() * along(self.scale, self.q.ndim, self.axis)

    def like(self, q: Tensor) -> Codes:
        """Return other codes on the same grid."""
        return Codes(q, self.scale, self.zero, self.axis)


def real(value: Tensor | Codes | None) -> Tensor | None:
    """Return the real value of codes, anything else as it is."""
    return value.real() if isinstance(value, Codes) else value


def on_reals(function: Op) -> Op:
    """Run an operator on real values."""
    return lambda *values: function(*[real(value) for value in values])


def moves(function: Op) -> Op:
    """Run an operator that only moves values on the codes themselves, if one grid serves the whole tensor."""

    def run(x: Tensor | Codes, *rest: Tensor | None) -> Tensor | Codes:
        if isinstance(x, Codes) and x.axis is None:
            return x.like(function(x.q, *rest))
        result: Tensor = function(real(x), *rest)
        return result

    return run


def passes(_node: Node, _function: Op) -> Op:
    """Pass any value on, per-channel codes too."""
    return lambda x, *_rest: x


def transpose(node: Node, function: Op) -> Op:
    """Permute codes; the channel axis of their scales moves along."""
    order, whole = node.get("perm", None), moves(function)

    def run(x: Tensor | Codes) -> Tensor | Codes:
        if isinstance(x, Codes) and x.axis is not None:
            axes = list(range(x.q.ndim))[::-1] if order is None else list(order)
            return Codes(function(x.q), x.scale, x.zero, axes.index(x.axis % x.q.ndim))
        result: Tensor | Codes = whole(x)
        return result

    return run


def dequantize(node: Node, _function: Op) -> Op:
    """Keep codes and grid; nothing is computed yet."""
    axis = quantizer_axis(node)

    def run(q: Tensor, scale: Tensor, zero: Tensor | None = None) -> Codes:
        origin = torch.zeros_like(scale) if zero is None else zero.to(torch.float64)
        return Codes(q.to(torch.float64), scale, origin, axis)

    return run


def _integers(sums: Tensor) -> Tensor:
    """Undo what a GPU's fast convolution algorithms add to exact sums; the gradient passes."""
    return sums if sums.device.type == "cpu" else sums + (sums.round() - sums).detach()


def product(multiply: Callable[[Tensor, Tensor], Tensor], weight_axis: int | None, out_axis: int) -> Op:
    """Multiply two operands as integers if both are codes, as reals otherwise.

    Args:
        multiply: Convolution or matrix product, without bias.
        weight_axis: Axis of the second operand whose scales may differ: that of the output channels.
        out_axis: Axis of the output channels in the result.
    """

    def run(x: Tensor | Codes, w: Tensor | Codes) -> Tensor:
        if isinstance(x, Codes) and isinstance(w, Codes) and x.axis is None:
            axis = None if w.axis is None else w.axis % w.q.ndim
            if axis is None or axis == weight_axis:
                sums = _integers(multiply(x.centred(), w.centred()))
                scale = x.scale.reshape(()) * w.scale
                if axis is not None and sums.shape[out_axis] != scale.numel():  # groups of a transposed convolution
                    scale = scale.repeat(sums.shape[out_axis] // scale.numel())
                return sums * along(scale, sums.ndim, None if axis is None else out_axis)
        a, b = real(x), real(w)
        assert a is not None
        assert b is not None
        return multiply(a, b)

    return run


def convolution(weight_axis: int) -> Callable[[Node, Op], Op]:
    """Return the builder of Conv (output channels on axis 0 of the weight) or ConvTranspose (axis 1)."""

    def build(_node: Node, function: Op) -> Op:
        multiply = product(function, weight_axis, 1)

        def run(x: Tensor | Codes, w: Tensor | Codes, b: Tensor | Codes | None = None) -> Tensor:
            result: Tensor = multiply(x, w)
            bias = real(b)
            return result if bias is None else result + bias.reshape(-1, *[1] * (result.ndim - 2))

        return run

    return build


def gemm(node: Node, _function: Op) -> Op:
    """``alpha * A' @ B' + beta * C`` with an exact integer product."""
    alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
    multiply = product(gemm_product(node), 0 if node.get("transB", 0) else 1, 1)

    def run(a: Tensor | Codes, b: Tensor | Codes, c: Tensor | Codes | None = None) -> Tensor:
        result: Tensor = multiply(a, b)
        bias = real(c)
        result = result if alpha == 1 else alpha * result
        return result if bias is None else result + (bias if beta == 1 else beta * bias)

    return run


def mat_mul(_node: Node, function: Op) -> Op:
    """Exact integer product over the last two axes."""

    def run(a: Tensor | Codes, b: Tensor | Codes) -> Tensor:
        dims = (b.q if isinstance(b, Codes) else b).ndim
        result: Tensor = product(function, dims - 1, -1)(a, b)
        return result

    return run


def pad(node: Node, function: Op) -> Op:
    """Pad codes with the code of real 0; any other constant is real."""
    zero = node.get("mode", "constant") != "constant" or node.number("value", 2, 0.0) == 0
    moved = moves(function)

    def run(x: Tensor | Codes, *rest: Tensor | None) -> Tensor | Codes:
        if zero and isinstance(x, Codes) and x.axis is None:
            return x.like(function(x.centred(), *rest) + x.zero.reshape(()))
        result: Tensor | Codes = moved(real(x), *rest)
        return result

    return run


def concat(_node: Node, function: Op) -> Op:
    """Join codes of one grid as codes, anything else as reals."""

    def run(*values: Tensor | Codes) -> Tensor | Codes:
        codes = [value for value in values if isinstance(value, Codes)]
        first = codes[0] if len(codes) == len(values) else None
        if first is not None and all(
            c.axis is None and torch.equal(c.scale, first.scale) and torch.equal(c.zero, first.zero) for c in codes
        ):
            return first.like(function(*[c.q for c in codes]))
        result: Tensor = function(*[real(value) for value in values])
        return result

    return run


def average_pool(node: Node, function: Op) -> Op:
    """Sum of codes, times the scale, over the count; reals likewise."""
    sums = window_sums(node)

    def run(x: Tensor | Codes) -> Tensor:
        if isinstance(x, Codes) and x.axis is None:
            total, count = sums(x.centred())
            return _integers(total) * x.scale.reshape(()) / count
        result: Tensor = function(real(x))
        return result

    return run


def global_average_pool(_node: Node, function: Op) -> Op:
    """Sum of codes, times the scale, over the count."""

    def run(x: Tensor | Codes) -> Tensor:
        if isinstance(x, Codes) and x.axis is None:
            total = x.centred().sum(dim=list(range(2, x.q.ndim)), keepdim=True)
            return total * x.scale.reshape(()) / (x.q[0, 0].numel() if x.q.shape[0] else 1)
        result: Tensor = function(real(x))
        return result

    return run


def reduce_mean(node: Node, function: Op) -> Op:
    """Sum of codes, times the scale, over the count."""
    axes = node.integers("axes", 1)
    keep, idle = bool(node.get("keepdims", 1)), bool(node.get("noop_with_empty_axes", 0))

    def run(x: Tensor | Codes, given: Tensor | None = None) -> Tensor:
        dim = axes(given)
        if isinstance(x, Codes) and x.axis is None and (dim or not idle):
            total = x.centred().sum(dim=dim or list(range(x.q.ndim)), keepdim=keep)
            return total * x.scale.reshape(()) / (x.q.numel() // max(total.numel(), 1))
        result: Tensor = function(real(x), given)
        return result

    return run


def shape_of(_node: Node, function: Op) -> Op:
    """Ask codes for their shape, not for their values."""
    return lambda x: function(x.q if isinstance(x, Codes) else x)


MOVES = {
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"),
    *("Identity", "Dropout", "MaxPool", "Slice", "Gather"),
}
"""Operators that move values of their first input and change none."""

EXACT: dict[str, Callable[[Node, Op], Op]] = {
    "DequantizeLinear": dequantize,
    "Conv": convolution(0),
    "ConvTranspose": convolution(1),
    "Gemm": gemm,
    "MatMul": mat_mul,
    "Pad": pad,
    "Concat": concat,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "ReduceMean": reduce_mean,
    "Shape": shape_of,
    "Size": shape_of,
    **dict.fromkeys(MOVES, lambda _node, function: moves(function)),
    "Identity": passes,
    "Dropout": passes,
    "Transpose": transpose,
}


def exact(node: Node, function: Op) -> Op:
    """Wrap the operator ``function`` of ``node`` so that it takes codes."""
    build = EXACT.get(node.op)
    return on_reals(function) if build is None else build(node, function)

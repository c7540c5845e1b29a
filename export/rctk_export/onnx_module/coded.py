"""Operators on integer codes: the arithmetic of the reference engine.

A value is *real* (a float tensor) or *codes* (what a DequantizeLinear gave). Two operands that are both codes
multiply as integers; their sum meets the product of the scales, then the bias. In exact mode floats are float64: they
hold every integer below 2**53, so sums are exact and their order is free. In fast mode they are float32, where that
ends at 2**24: beyond it a sum may be off by a share of 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rctk_export.onnx_module.codes import Codes, along
from rctk_export.onnx_module.node import Node, Op
from rctk_export.onnx_module.ops_conv import gemm_product, window_sums


def _tensor(value: Tensor | Codes) -> Tensor:
    return value.real() if isinstance(value, Codes) else value


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
            return Codes(function(x.q), x.scale, x.zero, axes.index(x.axis % x.q.ndim), x.fixed)
        result: Tensor | Codes = whole(x)
        return result

    return run


def _integers(sums: Tensor) -> Tensor:
    """Undo what a GPU's fast convolution algorithms add to exact sums; the gradient passes."""
    return sums if sums.device.type == "cpu" else sums + (sums.round() - sums).detach()


def product(multiply: Callable[[Tensor, Tensor], Tensor], weight_axis: int, out_axis: int) -> Op:
    """Return the product of two operands as integers, None unless both are codes whose scales allow it.

    Args:
        multiply: Convolution or matrix product, without bias; its result is nobody else's.
        weight_axis: Axis of the second operand whose scales may differ: that of the output channels.
        out_axis: Axis of the output channels in the result.
    """

    def run(x: Tensor | Codes, w: Tensor | Codes) -> Tensor | None:
        if not isinstance(x, Codes) or not isinstance(w, Codes) or x.axis is not None:
            return None
        if w.axis is not None and w.axis % w.q.ndim != weight_axis % w.q.ndim:
            return None
        sums = _integers(multiply(x.centred(), w.centred()))
        scale = x.scale.reshape(()) * w.scale
        if w.axis is None:
            return sums.mul_(scale.reshape(()))
        if sums.shape[out_axis] != scale.numel():  # groups of a transposed convolution
            scale = scale.repeat(sums.shape[out_axis] // scale.numel())
        return sums.mul_(along(scale, sums.ndim, out_axis))

    return run


def convolution(weight_axis: int) -> Callable[[Node, Op], Op]:
    """Return the builder of Conv (output channels on axis 0 of the weight) or ConvTranspose (axis 1)."""

    def build(node: Node, function: Op) -> Op:
        multiply, exact = product(function, weight_axis, 1), node.settings.exact

        def run(x: Tensor | Codes, w: Tensor | Codes, b: Tensor | Codes | None = None) -> Tensor:
            result: Tensor | None = multiply(x, w)
            bias = real(b)
            if result is None:
                result = function(real(x), real(w), None if exact else bias)
                bias = bias if exact else None
            return result if bias is None else result.add_(bias.reshape(-1, *[1] * (result.ndim - 2)))

        return run

    return build


def gemm(node: Node, function: Op) -> Op:
    """``alpha * A' @ B' + beta * C`` with an integer product."""
    alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
    multiply = product(gemm_product(node), 0 if node.get("transB", 0) else 1, 1)
    exact, plain = node.settings.exact, gemm_product(node)

    def run(a: Tensor | Codes, b: Tensor | Codes, c: Tensor | Codes | None = None) -> Tensor:
        result: Tensor | None = multiply(a, b)
        if result is None and not exact:
            real_result: Tensor = function(real(a), real(b), real(c))
            return real_result
        result = plain(_tensor(a), _tensor(b)) if result is None else result
        bias = real(c)
        result = result if alpha == 1 else alpha * result
        return result if bias is None else result + (bias if beta == 1 else beta * bias)

    return run


def mat_mul(_node: Node, function: Op) -> Op:
    """Integer product over the last two axes."""
    multiply = product(function, -1, -1)

    def run(a: Tensor | Codes, b: Tensor | Codes) -> Tensor:
        result: Tensor | None = multiply(a, b)
        return function(real(a), real(b)) if result is None else result

    return run


def pad(node: Node, function: Op) -> Op:
    """Pad codes with the code of real 0; any other constant is real."""
    zero = node.get("mode", "constant") != "constant" or node.number("value", 2, 0.0) == 0
    moved = moves(function)

    def run(x: Tensor | Codes, *rest: Tensor | None) -> Tensor | Codes:
        if zero and isinstance(x, Codes) and x.axis is None:
            padded = function(x.centred(), *rest)
            return x.like(padded if x.zero is None else padded + x.zero.reshape(()))
        result: Tensor | Codes = moved(real(x), *rest)
        return result

    return run


def _same_grid(a: Codes, b: Codes) -> bool:
    if a.axis is not None or b.axis is not None or (a.zero is None) != (b.zero is None):
        return False
    same_zero = a.zero is b.zero or (a.zero is not None and b.zero is not None and torch.equal(a.zero, b.zero))
    return same_zero and (a.scale is b.scale or torch.equal(a.scale, b.scale))


def concat(_node: Node, function: Op) -> Op:
    """Join codes of one grid as codes, anything else as reals."""

    def run(*values: Tensor | Codes) -> Tensor | Codes:
        codes = [value for value in values if isinstance(value, Codes)]
        if len(codes) == len(values) and all(_same_grid(c, codes[0]) for c in codes):
            return codes[0].like(function(*[c.q for c in codes]))
        result: Tensor = function(*[real(value) for value in values])
        return result

    return run


def average_pool(node: Node, function: Op) -> Op:
    """Sum of codes, times the scale, over the count; reals likewise."""
    sums, exact = window_sums(node), node.settings.exact

    def run(x: Tensor | Codes) -> Tensor:
        if isinstance(x, Codes) and x.axis is None:
            if not exact:
                mean: Tensor = function(x.centred())
                return mean * x.scale.reshape(())
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

CODED: dict[str, Callable[[Node, Op], Op]] = {
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


def coded(node: Node, function: Op) -> Op:
    """Wrap the operator ``function`` of ``node`` so that it takes codes."""
    build = CODED.get(node.op)
    return on_reals(function) if build is None else build(node, function)

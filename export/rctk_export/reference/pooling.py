"""Pooling and reductions: integer sums on codes, then one multiplication by the scale and one division by the count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rctk_export.reference.values import Array, Coded, Node, Operator, Value, integers, moved, plain, real, shape_of
from rctk_export.reference.windows import window_of
from rctk_kernels.errors import UnsupportedOperatorError
from rctk_kernels.pooling import average_pool, max_pool
from rctk_kernels.qparams import Real


def max_pooling(node: Node, x: Value) -> Value:
    """MaxPool; the largest code is the largest value."""
    if len([name for name in node.outputs if name]) > 1:
        raise UnsupportedOperatorError(f"MaxPool {node.name!r} also returns indices; rctk returns the maxima only")
    window = window_of(node, shape_of(x), node.attributes["kernel_shape"])
    return moved(x, lambda array: max_pool(array, window))


def average_pooling(node: Node, x: Value) -> Value:
    """AveragePool."""
    array, zero, scale = summands(x)
    window = window_of(node, array.shape, node.attributes["kernel_shape"])
    sums, counts = average_pool(array, window, zero=zero, count_padding=bool(node.get("count_include_pad", 0)))
    return np.asarray(sums * scale / counts)


def global_average(_: Node, x: Value) -> Value:
    """GlobalAveragePool."""
    return mean(x, tuple(range(2, len(shape_of(x)))), keep=True)


def global_max(_: Node, x: Value) -> Value:
    """GlobalMaxPool, on reals."""
    array = real(x)
    return np.asarray(array.max(axis=tuple(range(2, array.ndim)), keepdims=True))


def mean(x: Value, axes: tuple[int, ...] | None, *, keep: bool) -> Real:
    """Average over ``axes``, all of them for None: sum, times scale, divided by count."""
    array, zero, scale = summands(x)
    sums = (array - zero).sum(axis=axes, keepdims=keep)
    return np.asarray(sums * scale / (array.size // max(sums.size, 1)))


def summands(x: Value) -> tuple[Array, int, Real]:
    """Return what is summed, the zero point to subtract and the scale to apply afterwards."""
    if isinstance(x, Coded) and x.q.axis is None:
        return x.codes.astype(np.int64), int(x.q.origin), x.q.step
    return real(x), 0, np.ones(())


def reduction(reduce: Callable[[Array, tuple[int, ...] | None, bool], Array]) -> Operator:
    """Make the operator that reduces over the axes named by an attribute (old opsets) or an input."""

    def run(node: Node, x: Value, axes: Value | None = None) -> Value:
        named = node.get("axes", None) if axes is None else integers(axes)
        if not named and node.get("noop_with_empty_axes", 0):
            return x
        return reduce(plain(x), tuple(named) if named else None, bool(node.get("keepdims", 1)))

    return run


def reduce_mean(node: Node, x: Value, axes: Value | None = None) -> Value:
    """ReduceMean."""
    named = node.get("axes", None) if axes is None else integers(axes)
    if not named and node.get("noop_with_empty_axes", 0):
        return x
    return mean(x, tuple(named) if named else None, keep=bool(node.get("keepdims", 1)))


OPERATORS: dict[str, Operator] = {
    "AveragePool": average_pooling,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "MaxPool": max_pooling,
    "ReduceL1": reduction(lambda x, axes, keep: np.abs(x).sum(axis=axes, keepdims=keep)),
    "ReduceL2": reduction(lambda x, axes, keep: np.sqrt((x * x).sum(axis=axes, keepdims=keep))),
    "ReduceMax": reduction(lambda x, axes, keep: x.max(axis=axes, keepdims=keep)),
    "ReduceMean": reduce_mean,
    "ReduceMin": reduction(lambda x, axes, keep: x.min(axis=axes, keepdims=keep)),
    "ReduceProd": reduction(lambda x, axes, keep: x.prod(axis=axes, keepdims=keep)),
    "ReduceSum": reduction(lambda x, axes, keep: x.sum(axis=axes, keepdims=keep)),
    "ReduceSumSquare": reduction(lambda x, axes, keep: (x * x).sum(axis=axes, keepdims=keep)),
}

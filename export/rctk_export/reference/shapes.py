"""Shape arithmetic, conditions and what makes or spreads tensors; integers stay integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from rctk_export.reference.values import Array, Node, Operator, Value, integers, plain, shape_of

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


def widened(array: Array) -> Array:
    """Return floats of any width as float64; integers and conditions as they are."""
    kind = array.dtype.kind
    return array if kind in "iub" else array.astype(np.float64)


def cast_to(array: Array, data_type: int) -> Array:
    """Cast to an ONNX data type, where every float type is float64."""
    kind: Any = np.float64 if data_type in FLOATS else helper.tensor_dtype_to_np_dtype(data_type)
    return array.astype(kind)


def shape(node: Node, x: Value) -> Value:
    """Shape, or a part of it."""
    return np.array(shape_of(x)[node.get("start", 0) : node.get("end", None)], dtype=np.int64)


def constant_of_shape(node: Node, sizes: Value) -> Value:
    """ConstantOfShape; float 0 by default."""
    value = node.get("value", None)
    fill = np.zeros(1) if value is None else widened(numpy_helper.to_array(value))
    return np.full(integers(sizes), fill.reshape(()))


def expand(_: Node, x: Value, sizes: Value) -> Value:
    """Expand: broadcast both ways."""
    array = plain(x)
    return np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(integers(sizes))))


def split(node: Node, x: Value, sizes: Value | None = None) -> tuple[Value, ...]:
    """Split into parts of given or equal sizes, the last one smaller if need be."""
    array, axis = plain(x), node.get("axis", 0)
    length = array.shape[axis]
    part = -(-length // node.get("num_outputs", len(node.outputs)))
    cuts = np.cumsum(integers(sizes))[:-1] if sizes is not None else np.arange(part, length, part)
    return tuple(np.split(array, cuts, axis=axis))


def pointwise(function: Callable[..., Array]) -> Operator:
    """Make an operator of a NumPy function of plain arrays."""
    return lambda _, *values: np.asarray(function(*[plain(value) for value in values]))


OPERATORS: dict[str, Operator] = {
    "And": pointwise(np.logical_and),
    "Cast": lambda node, x: cast_to(plain(x), node.attributes["to"]),
    "CastLike": lambda _, x, like: plain(x).astype(plain(like).dtype),
    "ConstantOfShape": constant_of_shape,
    "Equal": pointwise(np.equal),
    "Expand": expand,
    "Greater": pointwise(np.greater),
    "GreaterOrEqual": pointwise(np.greater_equal),
    "Less": pointwise(np.less),
    "LessOrEqual": pointwise(np.less_equal),
    "Not": pointwise(np.logical_not),
    "Or": pointwise(np.logical_or),
    "Range": pointwise(lambda start, stop, step: np.arange(start.item(), stop.item(), step.item(), dtype=start.dtype)),
    "Shape": shape,
    "Size": lambda _, x: np.array(math.prod(shape_of(x)), dtype=np.int64),
    "Split": split,
    "Tile": lambda _, x, repeats: np.tile(plain(x), integers(repeats)),
    "Where": pointwise(np.where),
    "Xor": pointwise(np.logical_xor),
}

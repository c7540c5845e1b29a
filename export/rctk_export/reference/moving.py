"""Operators that only move or select values; codes pass through as codes, except GatherND."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rctk_export.reference.values import Array, Coded, Node, Operator, Value, integers, moved, plain, shape_of
from rctk_kernels.errors import UnsupportedOperatorError

PAD_MODES: dict[str, Any] = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def reshape(node: Node, x: Value, shape: Value) -> Value:
    """Reshape; 0 copies a size unless ``allowzero``, -1 is worked out."""
    wanted = integers(shape)

    def move(array: Array) -> Array:
        copied = wanted if node.get("allowzero", 0) else [n or array.shape[i] for i, n in enumerate(wanted)]
        return array.reshape(copied)

    return moved(x, move)


def flatten(node: Node, x: Value) -> Value:
    """Flatten to two dimensions."""
    axis = node.get("axis", 1)
    return moved(x, lambda array: array.reshape(math.prod(array.shape[:axis]), -1))


def squeeze(_: Node, x: Value, axes: Value | None = None) -> Value:
    """Drop dimensions of size 1, all of them by default."""
    return moved(x, lambda array: array.squeeze(None if axes is None else tuple(integers(axes))))


def unsqueeze(_: Node, x: Value, axes: Value) -> Value:
    """Insert dimensions of size 1."""
    return moved(x, lambda array: np.expand_dims(array, tuple(integers(axes))))


def slice_(_: Node, x: Value, starts: Value, ends: Value, *optional: Value | None) -> Value:
    """Slice along the given axes, the first ones by default."""
    begin, end = integers(starts), integers(ends)
    axes_given, steps_given = (*optional, None, None)[:2]
    axes = list(range(len(begin))) if axes_given is None else integers(axes_given)
    steps = [1] * len(begin) if steps_given is None else integers(steps_given)

    def move(array: Array) -> Array:
        cut = [slice(None)] * array.ndim
        for axis, first, last, step in zip(axes, begin, end, steps, strict=True):
            cut[axis] = slice(first, last, step)
        return array[tuple(cut)]

    return moved(x, move)


def gather(node: Node, x: Value, indices: Value) -> Value:
    """Select entries along one axis."""
    return moved(x, lambda array: np.take(array, plain(indices), axis=node.get("axis", 0)))


def gather_nd(node: Node, x: Value, indices: Value) -> Value:
    """Select blocks by the coordinates in the last dimension of ``indices``, per batch entry; as reals."""
    array, places, batch = plain(x), plain(indices), node.get("batch_dims", 0)
    lead = array.shape[:batch]
    rows = array.reshape(-1, *array.shape[batch:])
    wanted = places.reshape(len(rows), -1, places.shape[-1])
    picked = np.stack([row[tuple(spots.T)] for row, spots in zip(rows, wanted, strict=True)])
    return picked.reshape(*lead, *places.shape[batch:-1], *array.shape[batch + places.shape[-1] :])


def concat(node: Node, *parts: Value) -> Value:
    """Concat; codes stay codes if all parts share one grid."""
    axis = node.attributes["axis"]
    coded = [part for part in parts if isinstance(part, Coded)]
    shared = len(coded) == len(parts) and all(part.q == coded[0].q for part in coded)
    if shared and coded[0].q.axis is None:
        return Coded(np.concatenate([part.codes for part in coded], axis=axis), coded[0].q)
    return np.concatenate([plain(part) for part in parts], axis=axis)


def pad(node: Node, x: Value, pads: Value, *optional: Value | None) -> Value:
    """Pad; negative sizes crop. Real 0 is padded as the zero point, so codes stay codes."""
    constant, axes_given = (*optional, None, None)[:2]
    value = 0 if constant is None else plain(constant).reshape(()).item()
    if isinstance(x, Coded) and (x.q.axis is not None or (value and node.get("mode", "constant") == "constant")):
        x = x.real()
    fill = int(x.q.origin) if isinstance(x, Coded) else value
    ndim = len(shape_of(x))
    axes = list(range(ndim)) if axes_given is None else [axis % ndim for axis in integers(axes_given)]
    amounts = integers(pads)
    sides = [(0, 0)] * ndim
    for i, axis in enumerate(axes):
        sides[axis] = (amounts[i], amounts[i + len(axes)])
    return moved(x, lambda array: _padded(array, sides, node.get("mode", "constant"), fill))


def _padded(array: Array, sides: list[tuple[int, int]], mode: str, fill: float) -> Array:
    cut = [
        slice(max(-before, 0), size - max(-after, 0)) for (before, after), size in zip(sides, array.shape, strict=True)
    ]
    grow = [(max(before, 0), max(after, 0)) for before, after in sides]
    if mode == "constant":
        return np.pad(array[tuple(cut)], grow, constant_values=fill)
    return np.pad(array[tuple(cut)], grow, mode=PAD_MODES[mode])


def dropout(node: Node, x: Value, _: Value | None = None, training: Value | None = None) -> Value:
    """Dropout as it is at inference: nothing."""
    if training is not None and plain(training).any():
        raise UnsupportedOperatorError(f"Dropout {node.name!r} is in training mode; export the model in eval mode")
    return x


OPERATORS: dict[str, Operator] = {
    "Concat": concat,
    "Dropout": dropout,
    "Flatten": flatten,
    "Gather": gather,
    "GatherND": gather_nd,
    "Identity": lambda _, x: x,
    "Pad": pad,
    "Reshape": reshape,
    "Slice": slice_,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
}

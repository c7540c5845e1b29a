"""Operators that read between pixels: GridSample, AffineGrid, Resize; on reals in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rctk_export.reference.values import Array, Node, Operator, Value, integers, real
from rctk_kernels.errors import UnsupportedOperatorError
from rctk_kernels.qparams import Real

ROUNDINGS: dict[str, Callable[[Real], Real]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def grid_sample(node: Node, x: Value, grid: Value) -> Value:
    """GridSample of images: linear or nearest, outside pixels 0 or those of the border."""
    mode, outside = node.get("mode", "linear"), node.get("padding_mode", "zeros")
    image, places = real(x), real(grid)
    if mode not in {"linear", "bilinear", "nearest"} or outside not in {"zeros", "border"} or image.ndim != 4:
        raise UnsupportedOperatorError(
            f"GridSample {node.name!r} with mode {mode} and padding {outside} on {image.ndim} dimensions; "
            "rctk runs linear and nearest with zeros or border on images"
        )
    sizes = image.shape[3], image.shape[2]
    across, down = (
        _pixel(places[..., i], size, align=bool(node.get("align_corners", 0)), clamp=outside == "border")
        for i, size in enumerate(sizes)
    )
    if mode == "nearest":
        return _pixels_at(image, np.rint(down), np.rint(across))
    top, left = np.floor(down), np.floor(across)
    share_y, share_x = (down - top)[:, None], (across - left)[:, None]
    upper = _pixels_at(image, top, left) * (1 - share_x) + _pixels_at(image, top, left + 1) * share_x
    lower = _pixels_at(image, top + 1, left) * (1 - share_x) + _pixels_at(image, top + 1, left + 1) * share_x
    return np.asarray(upper * (1 - share_y) + lower * share_y)


def _pixel(place: Real, size: int, *, align: bool, clamp: bool) -> Real:
    """Turn places in [-1, 1] into pixel coordinates."""
    pixel = (place + 1) / 2 * (size - 1) if align else ((place + 1) * size - 1) / 2
    return np.clip(pixel, 0, size - 1) if clamp else pixel


def _pixels_at(image: Real, rows: Real, columns: Real) -> Real:
    """Read ``(N, C, h, w)`` pixels at whole coordinates ``(N, h, w)``; 0 outside."""
    height, width = image.shape[2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    row = np.where(inside, rows, 0).astype(np.int64)
    column = np.where(inside, columns, 0).astype(np.int64)
    which = np.arange(len(image))[:, None, None]
    pixels = image.transpose(0, 2, 3, 1)[which, row, column]
    return np.where(inside[..., None], pixels, 0.0).transpose(0, 3, 1, 2)


def affine_grid(node: Node, theta: Value, size: Value) -> Value:
    """AffineGrid of images: ``(N, H, W, 2)`` places for GridSample."""
    matrix, shape = real(theta), integers(size)
    if len(shape) != 4:
        raise UnsupportedOperatorError(f"AffineGrid {node.name!r} makes {len(shape)} dimensions; rctk runs images only")
    height, width = shape[2:]
    align = bool(node.get("align_corners", 0))
    y, x = np.meshgrid(_places(height, align=align), _places(width, align=align), indexing="ij")
    points = np.stack([x, y, np.ones_like(x)], axis=-1)
    return np.asarray(np.einsum("hwk,nik->nhwi", points, matrix))


def _places(size: int, *, align: bool) -> Real:
    if align:
        return np.linspace(-1.0, 1.0, size)
    return np.asarray((2 * np.arange(size) + 1) / size - 1)


def resize(node: Node, x: Value, _: Value | None = None, *optional: Value | None) -> Value:
    """Resize, nearest or linear, one axis after another."""
    mode, antialias = node.get("mode", "nearest"), node.get("antialias", 0)
    kept_ratio = node.get("keep_aspect_ratio_policy", "stretch") != "stretch"
    if mode not in {"nearest", "linear"} or antialias or kept_ratio:
        raise UnsupportedOperatorError(f"Resize {node.name!r} in mode {mode}; rctk runs plain nearest and linear")
    image = real(x)
    scales, sizes = (*optional, None, None)[:2]
    axes = [axis % image.ndim for axis in node.get("axes", range(image.ndim))]
    for i, axis in enumerate(axes):
        length = image.shape[axis]
        given = float(real(scales)[i]) if sizes is None and scales is not None else None
        count = int(np.floor(length * given)) if given is not None else integers(_present(node, sizes))[i]
        if count != length:
            places = _coordinates(node, length, count, given if given is not None else count / length)
            image = _resized(node, image, axis, places)
    return image


def _present(node: Node, sizes: Value | None) -> Value:
    if sizes is None:
        raise UnsupportedOperatorError(f"Resize {node.name!r} has neither scales nor sizes")
    return sizes


def _coordinates(node: Node, length: int, count: int, scale: float) -> Real:
    """Say where each output pixel lies among the input pixels."""
    mode, index = node.get("coordinate_transformation_mode", "half_pixel"), np.arange(count, dtype=np.float64)
    if mode == "asymmetric":
        return np.asarray(index / scale)
    if mode == "align_corners":
        return np.asarray(index * ((length - 1) / max(count - 1, 1)))
    if mode == "pytorch_half_pixel" and count == 1:
        return np.zeros(1)
    if mode in {"half_pixel", "pytorch_half_pixel"}:
        return np.asarray((index + 0.5) / scale - 0.5)
    raise UnsupportedOperatorError(f"Resize {node.name!r} with coordinates {mode!r}; export it with half_pixel")


def _resized(node: Node, image: Real, axis: int, places: Real) -> Array:
    last = image.shape[axis] - 1
    if node.get("mode", "nearest") == "nearest":
        nearest = ROUNDINGS[node.get("nearest_mode", "round_prefer_floor")](places)
        return np.take(image, np.clip(nearest, 0, last).astype(np.int64), axis=axis)
    below = np.floor(places)
    share = (places - below).reshape(-1, *[1] * (image.ndim - 1 - axis))
    low, high = (np.clip(index, 0, last).astype(np.int64) for index in (below, below + 1))
    return np.asarray(np.take(image, low, axis=axis) * (1 - share) + np.take(image, high, axis=axis) * share)


OPERATORS: dict[str, Operator] = {"AffineGrid": affine_grid, "GridSample": grid_sample, "Resize": resize}

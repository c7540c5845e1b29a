"""Blur, zoom and shrink as matrices along each side of an image; all of them are separable and linear."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Real = npt.NDArray[np.floating]
Border = Literal["edge", "symmetric", "reflect"]
"""Beyond the image: the last pixel again, its mirror image with the last pixel doubled, or without."""


def along_sides(images: Real, rows: Matrix, columns: Matrix) -> npt.NDArray[np.float64]:
    """Apply ``rows`` ``(h, H)`` and ``columns`` ``(w, W)`` to images ``(..., H, W)``; returns ``(..., h, w)``."""
    return np.asarray(rows @ images.astype(np.float64) @ columns.T)


def gaussian(images: Real, sigma: float, *, border: Border = "edge", truncate: float = 4.0) -> npt.NDArray[np.float64]:
    """Blur images ``(..., H, W)`` with a Gaussian of ``sigma`` pixels, cut off after ``truncate`` sigmas."""
    height, width = images.shape[-2:]
    rows, columns = (gaussian_matrix(side, sigma, border, truncate) for side in (height, width))
    return along_sides(images, rows, columns)


def zoom(images: Real, factor: float) -> npt.NDArray[np.float64]:
    """Enlarge the centre of images ``(..., H, W)`` by ``factor``, linearly; the size stays."""
    height, width = images.shape[-2:]
    return along_sides(images, zoom_matrix(height, factor), zoom_matrix(width, factor))


def shrink(images: Real, height: int, width: int) -> npt.NDArray[np.float64]:
    """Shrink or enlarge images to ``(..., height, width)`` with a box filter."""
    rows, columns = box_matrix(images.shape[-2], height), box_matrix(images.shape[-1], width)
    return along_sides(images, rows, columns)


@lru_cache(maxsize=64)
def gaussian_matrix(side: int, sigma: float, border: Border, truncate: float) -> Matrix:
    """Return ``(side, side)``; row ``i`` holds the weights of the pixels that make blurred pixel ``i``."""
    if sigma == 0:
        return np.eye(side)
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    sources = at_border(np.arange(side)[:, None] + offsets, side, border)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], sources), weights / weights.sum())
    return matrix


@lru_cache(maxsize=256)
def zoom_matrix(side: int, factor: float) -> Matrix:
    """Return ``(side, side)``: the middle ``side / factor`` pixels, spread so that first and last keep their places."""
    kept = math.ceil(side / factor)
    spread = round(kept * factor)
    top, trim = (side - kept) // 2, (spread - side) // 2
    places = top + (np.arange(side) + trim) * ((kept - 1) / max(spread - 1, 1))
    low = np.clip(np.floor(places), 0, side - 1).astype(np.int64)
    share = places - low
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side), low), 1 - share)
    np.add.at(matrix, (np.arange(side), np.minimum(low + 1, side - 1)), share)
    return matrix


@lru_cache(maxsize=64)
def box_matrix(side: int, new: int) -> Matrix:
    """Return ``(new, side)``: a new pixel is the mean of the pixels whose centres it covers, as Pillow's BOX does."""
    scale = side / new
    support = max(scale, 1.0) / 2
    matrix = np.zeros((new, side))
    for i in range(new):
        centre = (i + 0.5) * scale
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), side)
        matrix[i, first:last] = 1 / (last - first)
    return matrix


def at_border(places: npt.NDArray[np.int64], side: int, border: Border) -> npt.NDArray[np.int64]:
    """Return which pixel of a line of ``side`` stands at each of ``places``, that may lie outside."""
    if border == "edge" or side == 1:
        return np.clip(places, 0, side - 1)
    if border == "symmetric":
        turned = places % (2 * side)
        return np.minimum(turned, 2 * side - 1 - turned)
    turned = places % (2 * side - 2)
    return np.minimum(turned, 2 * side - 2 - turned)


def sample(images: Real, rows: Matrix, columns: Matrix, border: Border | None) -> npt.NDArray[np.float64]:
    """Read images ``(..., H, W)`` linearly at pixel coordinates ``rows`` and ``columns``, both ``(h, w)``.

    With ``border`` None, what lies outside is black.
    """
    height, width = images.shape[-2:]
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, across = rows - top, columns - left
    out = np.zeros((*images.shape[:-2], *rows.shape))
    for i, row_share in ((top, 1 - down), (top + 1, down)):
        for j, column_share in ((left, 1 - across), (left + 1, across)):
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            mode = border or "edge"
            pixels = images[..., at_border(i, height, mode), at_border(j, width, mode)]
            out += pixels * (row_share * column_share * (1.0 if border else inside))
    return out

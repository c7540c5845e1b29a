"""Pooling over codes or reals: maxima, and sums with the number of pixels in them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rctk_kernels.windows import Window


class Pooled(NamedTuple):
    """Sums under every position of a window, and how many pixels each one counts."""

    sums: npt.NDArray[Any]
    """``(N, C, H', W')`` of ``x - zero``; int64 for codes, float64 for reals."""
    counts: npt.NDArray[np.int64]
    """``(H', W')``; the average is ``sums * scale / counts``."""


def max_pool(x: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
    """Take the largest value under every position; padding never wins.

    Args:
        x: ``(N, C, H, W)`` codes or reals; the order of codes is that of their values, since scales are positive.
        window: Where to look.

    Returns:
        ``(N, C, H', W')`` of the same type.
    """
    lowest = np.iinfo(x.dtype).min if np.issubdtype(x.dtype, np.integer) else -np.inf
    positions, padded = window.positions(*x.shape[2:]), window.pad(x, lowest)
    best = np.full((*x.shape[:2], *positions), lowest, dtype=x.dtype)
    for row in range(window.size[0]):
        for column in range(window.size[1]):
            best = np.maximum(best, window.tap(padded, positions, row, column))
    return best


def average_pool(x: npt.NDArray[Any], window: Window, *, zero: int = 0, count_padding: bool = False) -> Pooled:
    """Sum ``x - zero`` under every position and count the pixels; padding adds nothing to the sum.

    Args:
        x: ``(N, C, H, W)`` codes or reals.
        window: Where to look.
        zero: Zero point of the codes.
        count_padding: Whether padded pixels count; what hangs over the edge through ``window.ceil`` never does.

    Example:
        >>> sums, counts = average_pool(np.array([[[[1, 2], [3, 4]]]]), Window(size=(2, 2)), zero=1)
        >>> sums.tolist(), counts.tolist()
        ([[[[6]]]], [[4]])
    """
    values = x.astype(np.int64) - zero if np.issubdtype(x.dtype, np.integer) else x - zero
    top, left, bottom, right = window.padding
    margin = ((top, bottom), (left, right))
    real = np.pad(np.ones(x.shape[2:], dtype=np.int64), margin, constant_values=int(count_padding))
    inner = Window(size=window.size, stride=window.stride, dilation=window.dilation, ceil=window.ceil)
    positions = window.positions(*x.shape[2:])
    return Pooled(_sums(values, window, positions), _sums(real[None, None], inner, positions)[0, 0])


def _sums(x: npt.NDArray[Any], window: Window, positions: tuple[int, int]) -> npt.NDArray[Any]:
    padded = window.pad(x, 0)
    total = np.zeros((*x.shape[:2], *positions), dtype=x.dtype)
    for row in range(window.size[0]):
        for column in range(window.size[1]):
            total += window.tap(padded, positions, row, column)
    return total

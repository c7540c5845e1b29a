"""Real ranges become grids: scale and zero point of activations, scales of weights, integer biases."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
MIN_SCALE = 1e-6
"""ONNX Runtime drops the bias of an all-zero channel whose scale is 1e-12 or less; TensorRT refuses scale 0."""
BIAS_LIMIT = 2**30
"""Largest integer bias; leaves a bit of headroom for the sums it is added to."""


class Grid(NamedTuple):
    """A quantization grid of activations: ``code = clip(round(real / scale) + zero)``."""

    scale: np.float32
    zero: npt.NDArray[np.int8] | npt.NDArray[np.uint8]


def signed_grid(low: float, high: float) -> Grid:
    """Return the int8 grid with zero point 0 and 127 steps up to the larger end of ``[low, high]``.

    Example:
        >>> signed_grid(-1.27, 0.5).scale
        np.float32(0.01)
    """
    scale = np.float32(max(abs(low), abs(high)) / 127)
    return Grid(np.maximum(scale, np.float32(MIN_SCALE)), np.zeros((), dtype=np.int8))


def unsigned_grid(low: float, high: float) -> Grid:
    """Return the uint8 grid that covers ``[low, high]`` and 0; real 0 is exactly one code.

    Example:
        >>> unsigned_grid(-1.0, 1.55).zero
        array(100, dtype=uint8)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(np.float32((high - low) / 255), np.float32(MIN_SCALE))
    zero = np.clip(np.rint(-low / float(scale)), 0, 255)
    return Grid(np.float32(scale), np.asarray(zero, dtype=np.uint8))


def weight_scales(weight: Array, axis: int = 0) -> npt.NDArray[np.float32]:
    """Return one symmetric scale per output channel, ``(O,)``: largest magnitude over 127, at least ``MIN_SCALE``."""
    rest = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight.astype(np.float64)).max(axis=rest)
    scales: npt.NDArray[np.float32] = np.maximum((largest / 127).astype(np.float32), np.float32(MIN_SCALE))
    return scales


def weight_codes(weight: Array, scales: npt.NDArray[np.float32], axis: int = 0) -> npt.NDArray[np.int8]:
    """Round a weight to its grid; codes in -127..127, ties to even."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    codes = np.rint(weight.astype(np.float64) / scales.astype(np.float64).reshape(shape))
    return np.clip(codes, -127, 127).astype(np.int8)


def scales_that_hold(
    scales: npt.NDArray[np.float32], bias: Array, activation_scale: np.float32
) -> npt.NDArray[np.float32]:
    """Raise weight scales, ``(O,)``, where the int32 bias would not fit otherwise (nearly dead channels)."""
    needed = np.abs(bias.astype(np.float64)) / (float(activation_scale) * BIAS_LIMIT)
    return np.maximum(scales, needed.astype(np.float32))


def bias_codes(
    bias: Array, scales: npt.NDArray[np.float32], activation_scale: np.float32
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return the int32 bias and its scales, both ``(O,)``; its grid is that of the integer sums."""
    grid = (scales * activation_scale).astype(np.float32)
    codes = np.rint(bias.astype(np.float64) / grid.astype(np.float64))
    return codes.astype(np.int32), grid

"""Real ranges become grids: scale and zero point of activations, scales of weights, integer biases."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rctk_export.quantize.formats import Steps

Array = npt.NDArray[Any]
MIN_SCALE = 1e-6
"""Of what is all zero: ONNX Runtime drops the bias of such a channel below 1e-12, and TensorRT refuses scale 0."""
TINY_SCALE = 1e-12
"""Of anything else; float32 multiplies two of them without underflow."""
BIAS_LIMIT = 2**30
"""Largest integer bias; leaves a bit of headroom for the sums it is added to."""


class Grid(NamedTuple):
    """A quantization grid of activations: ``code = clip(round(real / scale) + zero, low, high)``."""

    scale: np.float32
    zero: npt.NDArray[np.int8] | npt.NDArray[np.uint8]
    low: int
    high: int

    @property
    def bounds(self) -> tuple[np.float32, np.float32] | None:
        """Real values of the first and last code where these are not the ends of the type, which saturates itself."""
        info = np.iinfo(self.zero.dtype)
        if (self.low, self.high) == (info.min, info.max):
            return None
        zero = int(self.zero)
        return (self.low - zero) * self.scale, (self.high - zero) * self.scale


def usable(scales: Array) -> npt.NDArray[np.float32]:
    """Return scales that engines take: those of zeros become ``MIN_SCALE``, tiny ones stay as they are.

    Example:
        >>> usable(np.array([0.0, 1e-9, 0.5]))
        array([1.e-06, 1.e-09, 5.e-01], dtype=float32)
    """
    floored = np.where(scales > 0, np.maximum(scales, TINY_SCALE), MIN_SCALE)
    return np.asarray(floored, dtype=np.float32)


def signed_grid(low: float, high: float, bits: int = 8) -> Grid:
    """Return the int8 grid with zero point 0 that reaches the larger end of ``[low, high]``.

    8 bits have 127 steps up to it. Fewer bits leave int8 room for all codes of a tensor that is never negative, so
    these get ``2**bits - 1`` steps.

    Example:
        >>> signed_grid(-1.27, 0.5).scale
        np.float32(0.01)
        >>> signed_grid(0.0, 1.5, bits=4).high
        15
    """
    first, last = (0, 2**bits - 1) if low >= 0 and bits < 8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    scale = usable(np.asarray(max(abs(low), abs(high)) / last))
    return Grid(np.float32(scale), np.zeros((), dtype=np.int8), first, last)


def unsigned_grid(low: float, high: float, bits: int = 8) -> Grid:
    """Return the uint8 grid of ``2**bits`` codes that covers ``[low, high]`` and 0; real 0 is exactly one code.

    Example:
        >>> unsigned_grid(-1.0, 1.55).zero
        array(100, dtype=uint8)
    """
    low, high, last = min(low, 0.0), max(high, 0.0), 2**bits - 1
    scale = usable(np.asarray((high - low) / last))
    zero = np.clip(np.rint(-low / float(scale)), 0, last)
    return Grid(np.float32(scale), np.asarray(zero, dtype=np.uint8), 0, last)


def given_grid(steps: Steps, *, signed: bool) -> Grid | None:
    """Return a learned grid as codes around zero point 0, or as uint8; None where int8 cannot hold it."""
    scale = np.float32(steps.scale)
    if not signed:
        return Grid(scale, np.asarray(-steps.low, dtype=np.uint8), 0, steps.high - steps.low)
    fits = steps.low >= -128 and steps.high <= 127
    return Grid(scale, np.zeros((), dtype=np.int8), steps.low, steps.high) if fits else None


def weight_scales(weight: Array, axis: int = 0, bits: int = 8, *, per_channel: bool = True) -> npt.NDArray[np.float32]:
    """Return one symmetric scale per output channel, ``(O,)``, or one for all, ``()``.

    A scale is the largest magnitude over the last code, ``2**(bits - 1) - 1``; see :func:`usable`.
    """
    rest = tuple(i for i in range(weight.ndim) if i != axis or not per_channel)
    largest = np.abs(weight.astype(np.float64)).max(axis=rest)
    return usable(np.asarray(largest / (2 ** (bits - 1) - 1)))


def shaped(scales: npt.NDArray[np.float32], ndim: int, axis: int = 0) -> npt.NDArray[np.float32]:
    """Return scales ``(O,)`` or ``()`` so that they broadcast over a weight of ``ndim`` dimensions."""
    shape = [1] * ndim
    if scales.ndim:
        shape[axis] = -1
    return scales.reshape(shape)


def weight_codes(weight: Array, scales: npt.NDArray[np.float32], axis: int = 0, bits: int = 8) -> npt.NDArray[np.int8]:
    """Round a weight to its grid; symmetric codes, at 8 bits -127..127, ties to even."""
    limit = 2 ** (bits - 1) - 1
    codes = np.rint(weight.astype(np.float64) / shaped(scales, weight.ndim, axis).astype(np.float64))
    return np.clip(codes, -limit, limit).astype(np.int8)


def scales_that_hold(
    scales: npt.NDArray[np.float32], bias: Array, activation_scale: np.float32
) -> npt.NDArray[np.float32]:
    """Raise weight scales, ``(O,)`` or ``()``, where the int32 bias would not fit otherwise (nearly dead channels)."""
    needed = np.abs(bias.astype(np.float64)) / (float(activation_scale) * BIAS_LIMIT)
    return np.maximum(scales, (needed if scales.ndim else needed.max(initial=0.0)).astype(np.float32))


def bias_codes(
    bias: Array, scales: npt.NDArray[np.float32], activation_scale: np.float32
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return the int32 bias ``(O,)`` and its scales, ``(O,)`` or ``()``; its grid is that of the integer sums."""
    grid = np.asarray(scales * activation_scale, dtype=np.float32)
    codes = np.rint(bias.astype(np.float64) / grid.astype(np.float64))
    return codes.astype(np.int32), grid

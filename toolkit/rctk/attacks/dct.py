"""The orthonormal cosine transform (DCT-II) of images, in NumPy."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rctk.attacks.case import FloatCHW


@lru_cache(maxsize=32)
def cosines(size: int) -> npt.NDArray[np.float32]:
    """Return the basis ``(size, size)``: row ``k`` is a cosine of frequency ``k`` and length 1.

    Example:
        >>> np.allclose(cosines(5) @ cosines(5).T, np.eye(5), atol=1e-6)
        True
    """
    k, i = np.arange(size)[:, None], np.arange(size)[None]
    basis: npt.NDArray[np.float64] = np.cos(np.pi * (2 * i + 1) * k / (2 * size)) * np.sqrt(2 / size)
    basis[0] /= np.sqrt(2)
    result: npt.NDArray[np.float32] = basis.astype(np.float32)
    result.flags.writeable = False
    return result


def image_of(coefficients: FloatCHW, height: int, width: int) -> FloatCHW:
    """Return the image ``(C, height, width)`` of low-frequency coefficients ``(C, h, w)``, the rest taken as 0."""
    _, h, w = coefficients.shape
    return np.asarray(cosines(height)[:h].T @ coefficients @ cosines(width)[:w], dtype=np.float32)


def low(size: int, share: float) -> int:
    """Return how many of ``size`` frequencies are the lowest ``share``: at least eight, where there are so many."""
    return min(max(round(size * share), 8), size)


def wave(shape: tuple[int, ...], channel: int, down: int, across: int) -> FloatCHW:
    """Return one vector of the basis: an image ``(C, H, W)`` of length 1 with two frequencies in one channel."""
    image = np.zeros(shape, dtype=np.float32)
    image[channel] = np.outer(cosines(shape[1])[down], cosines(shape[2])[across])
    return image

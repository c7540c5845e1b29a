"""Defocus blur."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk.stress.resample import Matrix, at_border
from rctk_export.input_spec import FloatNCHW

SMALL = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
LARGE = ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5))


def defocus_blur(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:  # noqa: ARG001  # nothing random
    """Average over a disc, the image of a point that is out of focus; the border is a mirror."""
    kernel = disc(*by_size(images, SMALL, LARGE, severity))
    reach = len(kernel) // 2
    height, width = images.shape[2:]
    out = np.zeros(images.shape)
    for i, j in np.argwhere(kernel > 0):
        rows = at_border(np.arange(height) + i - reach, height, "reflect")
        columns = at_border(np.arange(width) + j - reach, width, "reflect")
        out += kernel[i, j] * images[..., rows[:, None], columns]
    return out


@lru_cache(maxsize=16)
def disc(radius: float, sigma: float) -> Matrix:
    """Return a disc of ``radius`` pixels that sums to 1, its rim smoothed by a short Gaussian of ``sigma`` pixels.

    The Gaussian has 3 taps, or 5 for radii above 8.
    """
    taps = 1 if radius <= 8 else 2
    reach = math.floor(radius) + taps
    line = np.arange(-reach, reach + 1)
    inside = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float64)
    short = np.exp(-0.5 * (np.arange(-taps, taps + 1) / sigma) ** 2)
    smooth = np.array([np.convolve(row, short / short.sum(), mode="same") for row in inside / inside.sum()])
    return np.array([np.convolve(row, short / short.sum(), mode="same") for row in smooth.T]).T

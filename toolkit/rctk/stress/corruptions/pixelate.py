"""Pixelate."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk.stress.resample import shrink
from rctk_export.input_spec import FloatNCHW

SMALL = (0.95, 0.90, 0.85, 0.75, 0.65)
LARGE = (0.60, 0.50, 0.40, 0.30, 0.25)


def pixelate(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:  # noqa: ARG001  # nothing random
    """Shrink to a share of the size with a box filter, and enlarge again."""
    share = by_size(images, SMALL, LARGE, severity)
    height, width = images.shape[2:]
    return shrink(shrink(images, max(int(height * share), 1), max(int(width * share), 1)), height, width)

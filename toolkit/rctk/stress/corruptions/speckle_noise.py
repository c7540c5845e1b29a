"""Speckle noise."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk_export.input_spec import FloatNCHW

SMALL = (0.06, 0.10, 0.12, 0.16, 0.20)
LARGE = (0.15, 0.20, 0.35, 0.45, 0.60)


def speckle_noise(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:
    """Add normal noise in proportion to every value."""
    return images * (1 + by_size(images, SMALL, LARGE, severity) * rng.standard_normal(images.shape))

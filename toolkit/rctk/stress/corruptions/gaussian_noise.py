"""Gaussian noise."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk_export.input_spec import FloatNCHW

SMALL = (0.04, 0.06, 0.08, 0.09, 0.10)
LARGE = (0.08, 0.12, 0.18, 0.26, 0.38)


def gaussian_noise(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:
    """Add normal noise of one standard deviation to every value."""
    return images + by_size(images, SMALL, LARGE, severity) * rng.standard_normal(images.shape)

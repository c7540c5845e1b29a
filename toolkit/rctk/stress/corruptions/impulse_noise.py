"""Impulse noise."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk_export.input_spec import FloatNCHW

SMALL = (0.01, 0.02, 0.03, 0.05, 0.07)
LARGE = (0.03, 0.06, 0.09, 0.17, 0.27)


def impulse_noise(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:
    """Replace a share of all values by 0 or 1, with equal chance; channels of a pixel are hit one by one."""
    hit = rng.random(images.shape) < by_size(images, SMALL, LARGE, severity)
    return np.where(hit, rng.random(images.shape) < 0.5, images)

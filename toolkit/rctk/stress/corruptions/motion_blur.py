"""Motion blur."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk.stress.moving import motion
from rctk_export.input_spec import FloatNCHW

SMALL = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))
LARGE = ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0))


def motion_blur(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:
    """Smear in a direction within 45 degrees of a row."""
    radius, sigma = by_size(images, SMALL, LARGE, severity)
    return motion(images, radius, sigma, rng.uniform(-45, 45))

"""Gaussian blur."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk.stress.resample import gaussian
from rctk_export.input_spec import FloatNCHW

SMALL = (0.4, 0.6, 0.7, 0.8, 1.0)
LARGE = (1.0, 2.0, 3.0, 4.0, 6.0)


def gaussian_blur(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:  # noqa: ARG001  # nothing random
    """Blur with a Gaussian of so many pixels."""
    return gaussian(images, by_size(images, SMALL, LARGE, severity))

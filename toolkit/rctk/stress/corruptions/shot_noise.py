"""Shot noise."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk_export.input_spec import FloatNCHW

SMALL = (500, 250, 100, 75, 50)
LARGE = (60, 25, 12, 5, 3)


def shot_noise(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:
    """Count photons: a Poisson number whose mean is so many photons per unit of light, over that many."""
    photons = by_size(images, SMALL, LARGE, severity)
    return rng.poisson(images * np.float64(photons)) / photons

"""Fog."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk.stress.plasma import plasma
from rctk_export.input_spec import FloatNCHW

SMALL = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))
LARGE = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))


def fog(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:
    """Add a fractal height map of a strength (and decay), and scale so that the brightest value stays."""
    strength, decay = by_size(images, SMALL, LARGE, severity)
    height, width = images.shape[2:]
    brightest = images.max(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    foggy = images + strength * plasma(height, width, decay, rng)
    return np.asarray(foggy * (brightest / (brightest + strength)))

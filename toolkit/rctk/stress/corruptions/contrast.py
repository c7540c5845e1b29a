"""Contrast."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk_export.input_spec import FloatNCHW

SMALL = (0.75, 0.50, 0.40, 0.30, 0.15)
LARGE = (0.40, 0.30, 0.20, 0.10, 0.05)


def contrast(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:  # noqa: ARG001  # nothing random
    """Shrink every channel towards its mean by a factor."""
    means = images.mean(axis=(2, 3), keepdims=True, dtype=np.float64)
    return np.asarray(means + (images - means) * by_size(images, SMALL, LARGE, severity))

"""Saturate."""

from __future__ import annotations

import numpy as np

from rctk.stress.colour import with_saturation
from rctk.stress.corrupt import Real, by_size
from rctk_export.input_spec import FloatNCHW

SMALL = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))
LARGE = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))


def saturate(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:  # noqa: ARG001  # nothing random
    """Scale and shift the saturation of hue, saturation and value; an image of one channel has none and stays."""
    factor, shift = by_size(images, SMALL, LARGE, severity)
    return with_saturation(images, factor, shift)

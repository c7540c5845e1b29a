"""Brightness."""

from __future__ import annotations

import numpy as np

from rctk.stress.colour import with_value
from rctk.stress.corrupt import Real, by_size
from rctk_export.input_spec import FloatNCHW

SMALL = (0.05, 0.10, 0.15, 0.20, 0.30)
LARGE = (0.10, 0.20, 0.30, 0.40, 0.50)


def brightness(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:  # noqa: ARG001  # nothing random
    """Raise the value of hue, saturation and value."""
    value = images.max(axis=1, keepdims=True)
    return with_value(images, np.minimum(value + by_size(images, SMALL, LARGE, severity), 1))

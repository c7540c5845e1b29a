"""Zoom blur."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk.stress.resample import zoom
from rctk_export.input_spec import FloatNCHW

SMALL = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
LARGE = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))


def zoom_blur(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:  # noqa: ARG001  # nothing random
    """Average the image and its enlargements from 1 up to below a factor, in steps."""
    end, step = by_size(images, SMALL, LARGE, severity)
    factors = np.arange(1, end, step).tolist()
    enlarged = np.sum([zoom(images, factor) for factor in factors], axis=0)
    return np.asarray((images + enlarged) / (len(factors) + 1))

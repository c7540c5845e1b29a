"""JPEG compression."""

from __future__ import annotations

import numpy as np

from rctk.stress.codec import through_jpeg
from rctk.stress.corrupt import Real, by_size
from rctk_export.input_spec import FloatNCHW

SMALL = (80, 65, 58, 50, 40)
LARGE = (25, 18, 15, 10, 7)


def jpeg_compression(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:  # noqa: ARG001  # nothing random
    """Store as JPEG of a quality, and read again."""
    return through_jpeg(images, by_size(images, SMALL, LARGE, severity))

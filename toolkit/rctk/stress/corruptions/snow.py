"""Snow."""

from __future__ import annotations

import numpy as np

from rctk.stress.colour import luminance
from rctk.stress.corrupt import Real, by_size
from rctk.stress.moving import motion
from rctk.stress.resample import zoom
from rctk_export.input_spec import FloatNCHW

SMALL = (
    (0.10, 0.2, 1.00, 0.60, 8, 3.0, 0.95),
    (0.10, 0.2, 1.00, 0.50, 10, 4.0, 0.90),
    (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.90),
    (0.25, 0.3, 2.25, 0.60, 12, 6.0, 0.85),
    (0.30, 0.3, 1.25, 0.65, 14, 12.0, 0.80),
)
LARGE = (
    (0.10, 0.3, 3.0, 0.50, 10, 4.0, 0.80),
    (0.20, 0.3, 2.0, 0.50, 12, 4.0, 0.70),
    (0.55, 0.3, 4.0, 0.90, 12, 8.0, 0.70),
    (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
)


def snow(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:
    """Lay falling flakes over a paler image.

    Flakes are normal noise (mean, deviation), enlarged (zoom), kept above a threshold and smeared downwards (radius,
    sigma); the last constant is the share of the image that keeps its colours.
    """
    mean, deviation, factor, threshold, radius, sigma, keep = by_size(images, SMALL, LARGE, severity)
    flakes = zoom(rng.normal(mean, deviation, images.shape[2:]), factor)
    flakes = motion(np.where(flakes < threshold, 0, flakes.clip(0, 1)), radius, sigma, rng.uniform(-135, -45))
    pale = np.maximum(images, 1.5 * luminance(images) + 0.5)
    return np.asarray(keep * images + (1 - keep) * pale + flakes + flakes[::-1, ::-1])

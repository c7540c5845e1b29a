"""Frost."""

from __future__ import annotations

import numpy as np

from rctk.stress.colour import tint
from rctk.stress.corrupt import Real, by_size
from rctk.stress.plasma import Map, plasma
from rctk_export.input_spec import FloatNCHW

SMALL = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
LARGE = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
ICE = (0.86, 0.94, 1.0)


def frost(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:
    """Add an icy texture: so much of the image, so much of the ice.

    The benchmark crops photographs of frost, which rctk does not carry; the texture here is procedural, so results
    compare models on the same images but not with published numbers.
    """
    image_share, ice_share = by_size(images, SMALL, LARGE, severity)
    height, width = images.shape[2:]
    return image_share * images + ice_share * tint(ICE, images.shape[1]) * texture(height, width, rng)


def texture(height: int, width: int, rng: np.random.Generator) -> Map:
    """Return bright veins on clouds of ice, ``(height, width)`` in [0, 1]: the crests of one height map on another."""
    crests = 1 - np.abs(2 * plasma(height, width, 1.3, rng) - 1)
    return np.asarray(0.6 * crests**2 + 0.4 * plasma(height, width, 1.6, rng))

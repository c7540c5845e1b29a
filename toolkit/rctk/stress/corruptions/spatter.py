"""Spatter."""

from __future__ import annotations

import numpy as np

from rctk.stress.colour import tint
from rctk.stress.corrupt import Real, by_size
from rctk.stress.resample import gaussian
from rctk_export.input_spec import FloatNCHW

SMALL = (
    (0.62, 0.1, 0.7, 0.70, 0.5, "water"),
    (0.65, 0.1, 0.8, 0.70, 0.5, "water"),
    (0.65, 0.3, 1.0, 0.69, 0.5, "water"),
    (0.65, 0.1, 0.7, 0.69, 0.6, "mud"),
    (0.65, 0.1, 0.5, 0.68, 0.6, "mud"),
)
LARGE = (
    (0.65, 0.3, 4.0, 0.69, 0.6, "water"),
    (0.65, 0.3, 3.0, 0.68, 0.6, "water"),
    (0.65, 0.3, 2.0, 0.68, 0.5, "water"),
    (0.65, 0.3, 1.0, 0.65, 1.5, "mud"),
    (0.67, 0.4, 1.0, 0.65, 1.5, "mud"),
)
WATER = (175 / 255, 238 / 255, 238 / 255)
TINY = 1e-12
MUD = (63 / 255, 42 / 255, 20 / 255)


def spatter(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:
    """Add drops of water, or cover with mud.

    Drops are where smoothed normal noise (mean, deviation, smoothing) is above a threshold; the next constant is the
    strength of water or the smoothing of mud. Water is the stronger the more the noise exceeds the threshold; the
    benchmark shades drops by the distance from their rims instead.
    """
    mean, deviation, smoothing, threshold, last, liquid = by_size(images, SMALL, LARGE, severity)
    layer = gaussian(rng.normal(mean, deviation, images.shape[2:]), smoothing)
    drops = np.maximum(layer - threshold, 0)
    channels = images.shape[1]
    if liquid == "water":
        return np.asarray(images + tint(WATER, channels) * (last / max(float(drops.max()), TINY) * drops))
    cover = gaussian((drops > 0).astype(np.float64), last)
    cover = np.where(cover < 0.8, 0.0, cover)
    return np.asarray(images * (1 - cover) + tint(MUD, channels) * cover)

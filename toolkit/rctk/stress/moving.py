"""Blur of a camera or of something that moves."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rctk.stress.resample import Real, at_border


def motion(images: Real, radius: int, sigma: float, degrees: float) -> npt.NDArray[np.float64]:
    """Smear images ``(..., H, W)`` in one direction.

    The weights are one half of a Gaussian of ``sigma`` pixels over ``2 * radius + 1`` steps, and beyond the border the
    last pixel repeats, as ImageMagick's motion blur does.

    Args:
        images: What is smeared.
        radius: In pixels.
        sigma: In pixels.
        degrees: Direction, from the rows' axis.
    """
    height, width = images.shape[-2:]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    down, across = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    out = np.zeros(images.shape)
    for step, weight in zip(steps.tolist(), (weights / weights.sum()).tolist(), strict=True):
        rows = at_border(np.arange(height) + math.ceil(step * down - 0.5), height, "edge")
        columns = at_border(np.arange(width) + math.ceil(step * across - 0.5), width, "edge")
        out += weight * images[..., rows[:, None], columns]
    return out

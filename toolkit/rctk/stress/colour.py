"""Colour of images ``(N, C, H, W)`` in [0, 1]; with one channel, everything is grey."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rctk.stress.resample import Real

RED_GREEN_BLUE = (0.299, 0.587, 0.114)
"""Weights of the luminance, Rec. 601."""


def luminance(images: Real) -> Real:
    """Return ``(N, 1, H, W)``: Rec. 601 for three channels, else the mean of the channels."""
    if images.shape[1] != 3:
        return np.asarray(images.mean(axis=1, keepdims=True))
    return np.asarray(np.einsum("nchw,c->nhw", images, np.array(RED_GREEN_BLUE)))[:, None]


def tint(colour: tuple[float, float, float], channels: int) -> npt.NDArray[np.float64]:
    """Return ``colour`` as ``(channels, 1, 1)``; its luminance in every channel where there are not three.

    Example:
        >>> tint((1.0, 1.0, 0.0), 1).round(3).tolist()
        [[[0.886]]]
    """
    rgb = np.array(colour)
    values = rgb if channels == 3 else np.full(channels, rgb @ np.array(RED_GREEN_BLUE))
    return values[:, None, None]


def with_value(images: Real, value: Real) -> Real:
    """Return images of the same hue and saturation whose largest channel is ``value`` ``(N, 1, H, W)``.

    Black turns grey.
    """
    old = images.max(axis=1, keepdims=True)
    return np.where(old > 0, images * (value / np.where(old > 0, old, 1)), value)


def with_saturation(images: Real, factor: float, shift: float) -> Real:
    """Return images of the same hue and value with saturation ``factor * s + shift``, clipped to [0, 1].

    A grey pixel has no hue and counts as red, as hue 0 is.
    """
    value, low = images.max(axis=1, keepdims=True), images.min(axis=1, keepdims=True)
    spread = value - low
    saturation = spread / np.where(value > 0, value, 1)
    below = (value - images) / np.where(spread > 0, spread, 1)  # 0 in the largest channel, 1 in the smallest
    red = np.arange(images.shape[1]).reshape(-1, 1, 1) > 0
    wanted = np.clip(factor * saturation + shift, 0, 1)
    return np.asarray(value * (1 - wanted * np.where(spread > 0, below, red)))

"""Cloudy random height maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Map = npt.NDArray[np.float64]


def plasma(height: int, width: int, decay: float, rng: np.random.Generator) -> Map:
    """Return a height map ``(height, width)`` cut from a square that wraps around and spans [0, 1].

    Diamond-square: the middles of squares, then of diamonds, become the mean of their four corners plus a random
    number; its range falls by ``decay`` squared from one scale to the next, as in the published corruptions.

    Reference:
        Fournier, Fussell, Carpenter, "Computer Rendering of Stochastic Models", Communications of the ACM 25, 1982.
        https://doi.org/10.1145/358523.358553
    """
    side = max(2, 1 << (max(height, width) - 1).bit_length())
    grid = np.zeros((side, side))
    step, reach = side, 1.0
    while step >= 2:
        half = step // 2
        corners = grid[::step, ::step]
        down = corners + np.roll(corners, -1, axis=0)
        middles = _varied(down + np.roll(down, -1, axis=1), reach, rng)
        grid[half::step, half::step] = middles
        beside = corners + np.roll(corners, -1, axis=1) + middles + np.roll(middles, 1, axis=0)
        grid[::step, half::step] = _varied(beside, reach, rng)
        below = down + middles + np.roll(middles, 1, axis=1)
        grid[half::step, ::step] = _varied(below, reach, rng)
        step, reach = half, reach / decay**2
    low, high = grid.min(), grid.max()
    return np.asarray((grid[:height, :width] - low) / (high - low))


def _varied(sums: Map, reach: float, rng: np.random.Generator) -> Map:
    return sums / 4 + rng.uniform(-reach, reach, sums.shape)

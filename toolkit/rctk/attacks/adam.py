"""Adam for attacks in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Adam:
    """Moments of a gradient, for all coordinates or some of them at a time.

    Each coordinate counts its own steps, so the first step of any coordinate has length 1. With ``pooled``, as a
    budget in l2 needs it, all coordinates share one second moment, and a step keeps the proportions of the gradient.

    Reference:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015. https://arxiv.org/abs/1412.6980

    Example:
        >>> Adam((2,)).step(np.array([4.0, -0.5], dtype=np.float32)).round(4).tolist()
        [1.0, -1.0]
    """

    def __init__(
        self, shape: tuple[int, ...], *, pooled: bool = False, first: float = 0.9, second: float = 0.999
    ) -> None:
        self._rates, self._pooled = (first, second), pooled
        self._mean = np.zeros(shape)
        self._square = np.zeros(shape)
        self._steps = np.zeros(shape)

    def step(self, gradient: Floats, where: npt.NDArray[np.int64] | slice = slice(None)) -> Floats:
        """Return what to walk against, per unit of learning rate, at the coordinates ``where`` of the first axis."""
        first, second = self._rates
        self._steps[where] += 1
        self._mean[where] = first * self._mean[where] + (1 - first) * gradient
        self._square[where] = second * self._square[where] + (1 - second) * gradient.astype(np.float64) ** 2
        mean = self._mean[where] / (1 - first ** self._steps[where])
        square = self._square[where] / (1 - second ** self._steps[where])
        if self._pooled:
            square = square.mean()
        return (mean / (np.sqrt(square) + 1e-8)).astype(np.float32)

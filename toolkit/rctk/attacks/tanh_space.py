"""The change of variable of Carlini and Wagner, and Adam with a state per image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rctk.attacks.closest import wide
from rctk.attacks.gradients import look
from rctk.attacks.losses import negative_margin

INSIDE = 1 - 1e-6
"""Share of [-1, 1] that pixels are put into, so that those of 0 and 1 have a finite inverse and can move."""


def to_tanh(x: Tensor) -> Tensor:
    """Return ``w`` without bounds for which ``(tanh(w) + 1) / 2`` is, but for a millionth, ``x``."""
    return ((2 * x - 1) * INSIDE).atanh()


def from_tanh(w: Tensor) -> Tensor:
    """Return the images in [0, 1] of ``w``."""
    return (w.tanh() + 1) / 2


def tanh_gradient(w: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient by ``w`` that belongs to one by the image."""
    return gradient * (1 - w.tanh().square()) / 2


class Shortfall(NamedTuple):
    """How far candidates are from being misclassified with enough confidence.

    Attributes:
        value: ``(N,)``; margin of the true class above minus ``confidence``, at least 0.
        reached: ``(N,)``; misclassified, and with enough confidence.
        gradient: ``(N, C, H, W)`` of ``value`` by the image.
    """

    value: Tensor
    reached: Tensor
    gradient: Tensor


def shortfall(model: nn.Module, adv: Tensor, y: Tensor, confidence: float) -> Shortfall:
    """Ask the model: one forward and one backward pass."""
    seen = look(model, adv, y, y, negative_margin, until_broken=False)
    reached = seen.broken & (seen.margin <= -confidence)
    return Shortfall(
        value=(seen.margin + confidence).clamp(min=0),
        reached=reached,
        gradient=torch.where(wide(reached), 0.0, -seen.gradient),
    )


class Descent:
    """Adam, with moments and a step count for every image.

    Args:
        start: First points ``(N, ...)``.
        rate: Learning rate.

    Reference:
        Kingma and Ba, "Adam", ICLR 2015, algorithm 1. https://arxiv.org/abs/1412.6980
    """

    def __init__(self, start: Tensor, rate: float) -> None:
        self.point = start.clone()
        self._rate = rate
        self._first, self._second = torch.zeros_like(start), torch.zeros_like(start)
        self._count = torch.zeros(len(start), device=start.device)

    def step(self, gradient: Tensor, rate: Tensor | float = 1.0) -> None:
        """Move all points downhill; ``rate`` multiplies the learning rate."""
        self._count += 1
        count = self._count.view(-1, *[1] * (gradient.ndim - 1))
        self._first = 0.9 * self._first + 0.1 * gradient
        self._second = 0.999 * self._second + 0.001 * gradient.square()
        first, second = self._first / (1 - 0.9**count), self._second / (1 - 0.999**count)
        self.point = self.point - self._rate * rate * first / (second.sqrt() + 1e-8)

    def keep(self, rows: Tensor) -> None:
        """Forget all points but those of ``rows``, ``(N,)`` bool."""
        self.point, self._count = self.point[rows], self._count[rows]
        self._first, self._second = self._first[rows], self._second[rows]

    def restart(self, rows: Tensor) -> None:
        """Forget the moments of ``rows``, ``(N,)`` bool."""
        self._count[rows] = 0
        self._first[rows] = 0
        self._second[rows] = 0

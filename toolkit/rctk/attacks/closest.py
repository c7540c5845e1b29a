"""The closest adversarial image that a minimum-norm attack has found for each original."""

from __future__ import annotations

import torch
from torch import Tensor

from rctk.threat import Norm


class Closest:
    """Keeps per image the broken candidate at the smallest distance.

    Args:
        x: Originals ``(N, C, H, W)``; an image for which nothing is found stays as it is.
        norm: How distances are measured.

    Attributes:
        norm: The same.
        images: ``(N, C, H, W)``.
        distance: ``(N,)``; infinite where nothing was found.
    """

    def __init__(self, x: Tensor, norm: Norm) -> None:
        self.images = x.detach().clone()
        self.distance = torch.full((len(x),), torch.inf, device=x.device)
        self.norm, self._x = norm, x

    def offer(self, rows: Tensor, images: Tensor, broken: Tensor) -> Tensor:
        """Offer candidates for the positions ``rows`` ``(n,)`` and return their distances ``(n,)``."""
        reached = sizes(images - self._x[rows], self.norm)
        better = broken & (reached < self.distance[rows])
        self.images[rows[better]] = images[better]
        self.distance[rows[better]] = reached[better]
        return reached

    def within(self, eps: float) -> Tensor:
        """Say for which images a candidate inside the budget was found, ``(N,)``."""
        return self.distance <= eps


def sizes(delta: Tensor, norm: Norm) -> Tensor:
    """Return the length of each difference, ``(N,)``."""
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    result: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    return result


def dual_sizes(gradient: Tensor, norm: Norm) -> Tensor:
    """Return the norm of each gradient that goes with ``norm``: how much a step of length 1 can change the value."""
    duals: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
    return sizes(gradient, duals[norm])


def wide(per_image: Tensor) -> Tensor:
    """Return one value per image as ``(N, 1, 1, 1)``."""
    return per_image.view(-1, 1, 1, 1)

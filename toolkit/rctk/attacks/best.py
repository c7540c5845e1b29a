"""The best candidate of every image over all steps, restarts and targets of an attack."""

from __future__ import annotations

import torch
from torch import Tensor


class Best:
    """Keeps per image the candidate that ranks highest: a broken one above all others, then by score.

    Args:
        x: Originals ``(N, C, H, W)``; they stand until something is offered.

    Attributes:
        images: The candidates ``(N, C, H, W)``.
        broken: Which of them are misclassified, ``(N,)`` bool.
        score: What each was offered with, ``(N,)``; minus infinity before that.
    """

    def __init__(self, x: Tensor) -> None:
        self.images = x.detach().clone()
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.score = torch.full((len(x),), -torch.inf, device=x.device)

    def offer(self, rows: Tensor, images: Tensor, score: Tensor, broken: Tensor) -> None:
        """Offer one candidate for each of the positions ``rows`` ``(n,)``; ties keep what is there."""
        had = self.broken[rows]
        better = (broken & ~had) | ((broken == had) & (score > self.score[rows]))
        self.images[rows[better]] = images[better]
        self.score[rows[better]] = score[better].to(self.score.dtype)
        self.broken[rows] |= broken

    def open(self, *, stop: bool) -> Tensor:
        """Return the positions still to attack: those not broken, or all of them unless ``stop``."""
        return torch.nonzero(~self.broken)[:, 0] if stop else torch.arange(len(self.broken), device=self.broken.device)

"""The loop of the gradient attacks that drive two models apart."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from rctk.attacks.ball import Ball
from rctk.attacks.best import Best
from rctk.threat import ThreatModel


class Gap(NamedTuple):
    """What two models say about candidates.

    Attributes:
        score: ``(N,)``; what the attack raises.
        evasive: ``(N,)`` bool; the model names another class and the reference the true one.
        gradient: ``(N, C, H, W)`` of the score.
    """

    score: Tensor
    evasive: Tensor
    gradient: Tensor


class Driver(Protocol):
    """An attack that climbs a score of two models."""

    @property
    def steps(self) -> int:
        """Gradient steps."""
        ...

    def see(self, model: nn.Module, reference: nn.Module, x: Tensor, y: Tensor) -> Gap:
        """Compare the models on ``x`` ``(N, C, H, W)`` with labels ``y`` ``(N,)``."""
        ...

    def stride(self, step: int) -> float:
        """Return the length of step number ``step``, from 0, as a share of ``eps``."""
        ...


class Walk:
    """The images that are still attacked, starting from the originals.

    Attributes:
        rows: ``(n,)``; their positions in the batch.
        adv: ``(n, C, H, W)``; the latest candidates.
        y: ``(n,)``.
        taken: Steps so far.
    """

    def __init__(self, x: Tensor, y: Tensor, threat: ThreatModel) -> None:
        self.rows = torch.arange(len(x), device=x.device)
        self.adv, self.y, self.taken = x.detach().clone(), y, 0
        self._ball = Ball.around(x, threat)

    def move(self, gradient: Tensor, stride: float) -> None:
        """Take a step uphill and stay inside the budget."""
        length = stride * self._ball.threat.eps
        self.adv = self._ball.project(self.adv + length * self._ball.direction(gradient))
        self.taken += 1

    def keep(self, left: Tensor) -> None:
        """Go on with the images ``left`` ``(n,)`` only."""
        if not bool(left.all()):
            self.rows, self.adv, self.y = self.rows[left], self.adv[left], self.y[left]
            self._ball = self._ball.keep(left)


def search(  # noqa: PLR0913 - who drives what, where, and when it ends
    driver: Driver, model: nn.Module, reference: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, stop: bool
) -> Tensor:
    """Return for every image an evasive iterate, or else the one with the highest score.

    With ``stop`` an image leaves at its first evasive iterate; otherwise the evasive one with the highest score stands.
    """
    best, walk = Best(x), Walk(x, y, threat)
    while len(walk.rows):
        seen = driver.see(model, reference, walk.adv, walk.y)
        best.offer(walk.rows, walk.adv, seen.score, seen.evasive)
        if walk.taken == driver.steps:
            break
        walk.move(seen.gradient, driver.stride(walk.taken))
        if stop:
            walk.keep(~seen.evasive)
    return best.images

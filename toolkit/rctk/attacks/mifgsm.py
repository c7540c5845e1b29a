"""Momentum iterative FGSM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball
from rctk.attacks.best import Best
from rctk.attacks.closest import sizes, wide
from rctk.attacks.gradients import look
from rctk.attacks.losses import cross_entropy
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class MIFGSM:
    """Gradient steps along an accumulated direction, from the image itself, linf and l2.

    Every gradient is scaled to l1 length 1 before it is added; one that is zero adds nothing, and the image moves on
    along what it has.

    Attributes:
        steps: Gradient steps, each of ``eps / steps``.
        decay: Weight of the direction so far.
        stop_at_success: Leave an image once it is broken; off, it goes on to the smallest margin.

    Reference:
        Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018, algorithm 1.
        https://arxiv.org/abs/1710.06081
    """

    name: ClassVar[str] = "mifgsm"
    kind: ClassVar[Kind] = "gradient"
    packs: ClassVar[bool] = True

    steps: int = 10
    decay: float = 1.0
    stop_at_success: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.decay < float("inf"):
            raise OptionError(
                f"mifgsm needs steps of at least 1 and a decay of at least 0, got {self.steps} and {self.decay}"
            )

    @property
    def passes(self) -> int:
        """Forward and backward passes."""
        return 2 * self.steps + 1

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return for every image the iterate with the smallest margin."""
        del generator  # nothing here is random
        best, ball = Best(x), Ball.around(x, threat)
        rows, adv, gathered = torch.arange(len(x), device=x.device), x, torch.zeros_like(x)
        for _ in range(self.steps if len(x) else 0):
            seen = look(model, adv, y[rows], y[rows], cross_entropy, until_broken=self.stop_at_success)
            best.offer(rows, adv, -seen.margin, seen.broken)
            gathered = self.decay * gathered + seen.gradient / wide(sizes(seen.gradient, "l1").clamp(min=1e-12))
            if self.stop_at_success:
                left = ~seen.broken
                rows, adv, gathered, ball = rows[left], adv[left], gathered[left], ball.keep(left)
            if not len(rows):
                return best.images
            adv = ball.project(adv + threat.eps / self.steps * ball.direction(gathered))
        if len(x):
            seen = look(model, adv, y[rows], y[rows], cross_entropy, gradient=False)
            best.offer(rows, adv, -seen.margin, seen.broken)
        return best.images

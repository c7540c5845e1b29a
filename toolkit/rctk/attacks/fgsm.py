"""Fast gradient sign method: one step of the full budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball
from rctk.attacks.gradients import look
from rctk.attacks.losses import cross_entropy
from rctk.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """Fast gradient sign method on the cross-entropy; in l2 the step is along the gradient itself.

    Reference:
        Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015. https://arxiv.org/abs/1412.6572
    """

    name: ClassVar[str] = "fgsm"
    kind: ClassVar[Kind] = "gradient"
    packs: ClassVar[bool] = True

    @property
    def passes(self) -> int:
        """One forward, one backward."""
        return 2

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return ``x`` moved by ``eps`` along the sign of the gradient; images broken as they are stay."""
        del generator  # nothing here is random
        ball = Ball.around(x, threat)
        seen = look(model, x, y, y, cross_entropy)
        moved = ball.project(x + threat.eps * ball.direction(seen.gradient))
        return torch.where(seen.broken[:, None, None, None], x, moved)

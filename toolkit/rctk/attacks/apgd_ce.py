"""Auto-PGD on the cross-entropy, or on another untargeted loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.apgd import AutoPgd
from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball, draw_base
from rctk.attacks.best import Best
from rctk.attacks.losses import LOSSES, LossName
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class APGDCrossEntropy:
    """Auto-PGD (see :class:`rctk.attacks.apgd.AutoPgd`), untargeted, linf and l2.

    An image that is never broken comes back as its iterate with the highest loss, which is what transfers to an engine.

    Attributes:
        steps: Gradient steps per restart.
        restarts: Random starts; later ones see only images that are not broken yet.
        loss: ``ce``; ``dlr`` does not depend on the scale of the logits; ``margin``.
        stop_at_success: Leave an image once it is broken. Switch off to go on to the highest loss, which a candidate
            needs when it has to break another model too.
    """

    name: ClassVar[str] = "apgd-ce"
    kind: ClassVar[Kind] = "gradient"
    packs: ClassVar[bool] = True

    steps: int = 100
    restarts: int = 1
    loss: LossName = "ce"
    stop_at_success: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts) < 1:
            raise OptionError(f"apgd-ce needs steps and restarts of at least 1, got {self.steps} and {self.restarts}")
        if self.loss not in LOSSES:
            raise OptionError(f"apgd-ce:loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")

    @property
    def passes(self) -> int:
        """Forward and backward passes of all restarts."""
        return self.restarts * (2 * self.steps + 1)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return for every image a broken iterate, or else the one with the highest loss."""
        best, base = Best(x), draw_base(generator)
        run = AutoPgd(steps=self.steps, loss=LOSSES[self.loss], stop=self.stop_at_success)
        for restart in range(self.restarts):
            rows = best.open(stop=self.stop_at_success)
            if not len(rows):
                break
            ball = Ball.around(x[rows], threat)
            run.run(model, ball, y[rows], y[rows], ball.start(base, stream=restart, surface=True), best)
        return best.images

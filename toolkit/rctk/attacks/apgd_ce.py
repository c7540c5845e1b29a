"""Auto-PGD on the cross-entropy, or on another untargeted loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.apgd_run import EXTRA, auto_pgd
from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball, draw_base
from rctk.attacks.best import Best
from rctk.attacks.losses import LossName
from rctk.attacks.objectives import OBJECTIVES, require_loss
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class APGDCrossEntropy:
    """Auto-PGD (see :class:`rctk.attacks.apgd.AutoPgd`), untargeted, linf, l2 and l1.

    An image that is never broken comes back as its iterate with the highest loss, which is what transfers to an engine.

    Attributes:
        steps: Gradient steps per restart.
        restarts: Random starts; later ones see only images that are not broken yet.
        loss: ``ce``; ``dlr`` does not depend on the scale of the logits, nor does ``dlr-t``, which aims at the
            likeliest wrong class; ``margin``; ``njs`` and ``hns``, the cross-entropy of logits scaled per image.
        eot: Answers to average per step, for a model that answers at random.
        stop_at_success: Leave an image once it is broken. Switch off to go on to the highest loss, which a candidate
            needs when it has to break another model too.
    """

    name: ClassVar[str] = "apgd-ce"
    kind: ClassVar[Kind] = "gradient"
    packs: ClassVar[bool] = True
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")

    steps: int = 100
    restarts: int = 1
    loss: LossName = "ce"
    eot: int = 1
    stop_at_success: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts, self.eot) < 1:
            raise OptionError(
                f"{self.name} needs steps, restarts and eot of at least 1, got {self.steps}, {self.restarts} and "
                f"{self.eot}"
            )
        require_loss(self.loss, self.name)

    @property
    def passes(self) -> int:
        """Forward and backward passes of all restarts."""
        return OBJECTIVES[self.loss].passes + self.restarts * self.eot * (2 * self.steps + EXTRA)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return for every image a broken iterate, or else the one with the highest loss."""
        best, base = Best(x), draw_base(generator)
        objective = OBJECTIVES[self.loss]
        aside = objective.aside(model, x, y)
        run = auto_pgd(threat, steps=self.steps, loss=objective.loss, stop=self.stop_at_success, draws=self.eot)
        for restart in range(self.restarts):
            rows = best.open(stop=self.stop_at_success)
            if not len(rows):
                break
            ball = Ball.around(x[rows], threat)
            run.run(model, ball, y[rows], aside[rows], run.start(ball, base, stream=restart), best)
        return best.images

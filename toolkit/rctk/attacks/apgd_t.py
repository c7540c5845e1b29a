"""Auto-PGD towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.apgd import AutoPgd
from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball, draw_base
from rctk.attacks.best import Best
from rctk.attacks.gradients import classify
from rctk.attacks.losses import targeted_dlr
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class APGDTargeted:
    """Auto-PGD on the targeted difference of logits ratio, linf and l2.

    Targets are the wrong classes with the highest logits on the clean image, most likely first; each target sees only
    the images that are not broken yet. With fewer classes there are fewer targets, and below four classes the loss is
    the targeted margin, because the ratio needs four logits.

    Attributes:
        steps: Gradient steps per target.
        targets: Wrong classes to try, at most.
        restarts: Random starts per target.
        stop_at_success: Leave an image once it is broken.
    """

    name: ClassVar[str] = "apgd-t"
    kind: ClassVar[Kind] = "gradient"
    packs: ClassVar[bool] = True

    steps: int = 100
    targets: int = 9
    restarts: int = 1
    stop_at_success: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.targets, self.restarts) < 1:
            raise OptionError(
                f"apgd-t needs steps, targets and restarts of at least 1, got {self.steps}, {self.targets} and "
                f"{self.restarts}"
            )

    @property
    def passes(self) -> int:
        """Forward and backward passes of all targets and restarts, and one to rank the classes."""
        return 1 + self.targets * self.restarts * (2 * self.steps + 1)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return for every image a broken iterate, or else the one with the highest loss over all targets."""
        best, base = Best(x), draw_base(generator)
        run = AutoPgd(steps=self.steps, loss=targeted_dlr, stop=self.stop_at_success)
        ranked = wrong_classes(model, x, y)[:, : self.targets]
        for number in range(ranked.shape[1] * self.restarts):
            rows = best.open(stop=self.stop_at_success)
            if not len(rows):
                break
            ball = Ball.around(x[rows], threat)
            start = ball.start(base, stream=number, surface=True)
            run.run(model, ball, y[rows], ranked[rows, number // self.restarts], start, best)
        return best.images


def wrong_classes(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return all classes but the true one, the highest logit first, ``(N, K - 1)``."""
    return classify(model, x).scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :-1]

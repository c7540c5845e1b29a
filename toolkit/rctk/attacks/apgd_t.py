"""Auto-PGD towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.apgd_run import EXTRA, auto_pgd
from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball, draw_base
from rctk.attacks.best import Best
from rctk.attacks.losses import targeted_dlr
from rctk.attacks.targets import wrong_classes
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class APGDTargeted:
    """Auto-PGD on the targeted difference of logits ratio, linf, l2 and l1.

    Targets are the wrong classes with the highest logits on the clean image, most likely first; each target sees only
    the images that are not broken yet. With fewer classes there are fewer targets, and below four classes the loss is
    the targeted margin, because the ratio needs four logits.

    Attributes:
        steps: Gradient steps per target.
        targets: Wrong classes to try, at most.
        restarts: Random starts per target.
        eot: Answers to average per step, for a model that answers at random.
        stop_at_success: Leave an image once it is broken.
    """

    name: ClassVar[str] = "apgd-t"
    kind: ClassVar[Kind] = "gradient"
    packs: ClassVar[bool] = True
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")

    steps: int = 100
    targets: int = 9
    restarts: int = 1
    eot: int = 1
    stop_at_success: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.targets, self.restarts, self.eot) < 1:
            raise OptionError(
                f"apgd-t needs steps, targets, restarts and eot of at least 1, got {self.steps}, {self.targets}, "
                f"{self.restarts} and {self.eot}"
            )

    @property
    def passes(self) -> int:
        """Forward and backward passes of all targets and restarts, and one to rank the classes."""
        return 1 + self.targets * self.restarts * self.eot * (2 * self.steps + EXTRA)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return for every image a broken iterate, or else the one with the highest loss over all targets."""
        best, base = Best(x), draw_base(generator)
        run = auto_pgd(threat, steps=self.steps, loss=targeted_dlr, stop=self.stop_at_success, draws=self.eot)
        ranked = wrong_classes(model, x, y)[:, : self.targets]
        for number in range(ranked.shape[1] * self.restarts):
            rows = best.open(stop=self.stop_at_success)
            if not len(rows):
                break
            ball = Ball.around(x[rows], threat)
            start = run.start(ball, base, stream=number)
            run.run(model, ball, y[rows], ranked[rows, number // self.restarts], start, best)
        return best.images

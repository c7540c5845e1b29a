"""R+FGSM: one random step, then one gradient step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball, draw_base
from rctk.attacks.draws import image_seeds, normal
from rctk.attacks.gradients import look
from rctk.attacks.losses import cross_entropy
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class RFGSM:
    """Random step of a share of the budget, then FGSM with the rest; one gradient, linf and l2.

    It steps out of the flat region that gradient masking leaves around an image, which FGSM alone does not.

    Attributes:
        random_share: Length of the random step as a share of ``eps``.

    Reference:
        Tramer et al., "Ensemble Adversarial Training: Attacks and Defenses", ICLR 2018, eq. 7.
        https://arxiv.org/abs/1705.07204
    """

    name: ClassVar[str] = "rfgsm"
    kind: ClassVar[Kind] = "gradient"
    packs: ClassVar[bool] = True

    random_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.random_share < 1:
            raise OptionError(f"rfgsm:random_share is a share of eps in [0, 1), got {self.random_share}")

    @property
    def passes(self) -> int:
        """One forward, one backward."""
        return 2

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return ``x`` moved by the random and by the gradient step; a point broken half-way is returned as it is."""
        ball, seeds = Ball.around(x, threat), image_seeds(x.detach().cpu().numpy(), draw_base(generator))
        noise = torch.from_numpy(normal(seeds, tuple(x.shape[1:]))).to(x.device)
        first = self.random_share * threat.eps
        middle = ball.project(x + first * ball.direction(noise))
        seen = look(model, middle, y, y, cross_entropy)
        moved = ball.project(middle + (threat.eps - first) * ball.direction(seen.gradient))
        return torch.where(seen.broken[:, None, None, None], middle, moved)

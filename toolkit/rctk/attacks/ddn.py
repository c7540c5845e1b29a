"""Decoupling direction and norm: gradient steps on a sphere whose radius shrinks while images are broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.ball import length
from rctk.attacks.closest import Closest, sizes, wide
from rctk.attacks.fmn import cosine
from rctk.attacks.gradients import look
from rctk.attacks.losses import cross_entropy
from rctk.attacks.slopes import misclassified
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError

_TINY = 1e-12
SLOWEST = 0.01
"""Share of its first length, 1 in l2, to which the step falls."""


@dataclass(frozen=True, kw_only=True)
class DDN:
    """Decoupled direction and norm, l2: the closest misclassified image in a fixed number of steps.

    Each step turns the perturbation along the gradient of the cross-entropy and then sets its length to a radius that
    shrinks by ``rate`` where the iterate is broken and grows by it where it is not. It has no budget: the judge
    projects the closest image that was found.

    Attributes:
        steps: Gradient steps; their length falls along a cosine from 1 to 0.01.
        rate: Share by which the radius changes; a larger one finds more at large budgets, a smaller one ends closer.
        first: First radius.
        stop_in_budget: Leave an image once an adversarial inside the budget is found; off, it goes on to the closest.

    Reference:
        Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses",
        CVPR 2019, algorithm 1. https://arxiv.org/abs/1811.09600
    """

    name: ClassVar[str] = "ddn"
    kind: ClassVar[Kind] = "gradient"
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    packs: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True

    steps: int = 100
    rate: float = 0.05
    first: float = 1.0
    stop_in_budget: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.rate < 1 or self.first <= 0:
            raise OptionError(
                f"ddn needs steps of at least 1, a rate in (0, 1) and a first radius above 0, got {self.steps}, "
                f"{self.rate} and {self.first}"
            )

    @property
    def passes(self) -> int:
        """Forward and backward passes."""
        return 2 * self.steps + 1

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return the closest misclassified image found for each, or the original."""
        del generator  # nothing here is random
        closest = Closest(x, "l2")
        rows, adv = torch.arange(len(x), device=x.device), x
        radius = torch.full_like(closest.distance, self.first)
        for number in range(self.steps):
            if not len(rows):
                return closest.images
            seen = look(model, adv, y[rows], y[rows], cross_entropy, until_broken=False)
            reached = closest.offer(rows, adv, seen.broken)
            radius = radius * torch.where(seen.broken, 1 - self.rate, 1 + self.rate)
            left = reached.ne(0) | ~seen.broken  # an image broken as it is cannot get closer
            if self.stop_in_budget:
                left &= ~closest.within(threat.eps)[rows]
            rows, adv, radius, slope = rows[left], adv[left], radius[left], seen.gradient[left]
            share = cosine(number, self.steps)
            step = (share + SLOWEST * (1 - share)) * slope / length(slope).clamp(min=_TINY)
            adv = _on_sphere(adv + step - x[rows], x[rows], radius)
        if len(rows):
            closest.offer(rows, adv, misclassified(model, adv, y[rows]))
        return closest.images


def _on_sphere(delta: Tensor, x: Tensor, radius: Tensor) -> Tensor:
    """Give every perturbation its length ``(n,)`` and keep it in the box."""
    return (x + delta * wide(radius / sizes(delta, "l2").clamp(min=_TINY))).clamp(0, 1)

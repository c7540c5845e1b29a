"""Fast minimum-norm attack: gradient steps in a ball whose radius follows the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.ball import length
from rctk.attacks.closest import Closest, dual_sizes, sizes, wide
from rctk.attacks.gradients import Look, look
from rctk.attacks.l1 import shrink_l1
from rctk.attacks.losses import negative_margin
from rctk.attacks.slopes import misclassified
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError

_TINY = 1e-12
SLOWEST = 0.01
"""Share of its first length to which the step falls."""
TAMEST = 0.02
"""Share of its first value to which the rate of the radius falls."""
FIRST_STEP = 1.0
"""Authors' first step length in l2 for l2 and l1. Theirs for linf, 10, suits a radius of 0.3; see :func:`_length`."""


@dataclass(frozen=True, kw_only=True)
class FMN:
    """Fast minimum-norm attack, linf, l2 and l1: the closest misclassified image in a fixed number of steps.

    The radius of each image starts at the distance that a linearised margin predicts, shrinks by a rate where the
    iterate is broken and grows where it is not; step and rate fall along a cosine. Until an image is broken once, its
    radius only grows, because pixels that have reached 0 or 1 make the prediction fall short. It has no budget: the
    judge projects the closest image that was found.

    Attributes:
        steps: Gradient steps.
        rate: First share by which the radius changes; it falls to a fiftieth of it.
        stop_in_budget: Leave an image once an adversarial inside the budget is found; off, it goes on to the closest.

    Reference:
        Pintor et al., "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints", NeurIPS 2021,
        algorithm 1. https://arxiv.org/abs/2102.12827
    """

    name: ClassVar[str] = "fmn"
    kind: ClassVar[Kind] = "gradient"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    packs: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True

    steps: int = 100
    rate: float = 0.05
    stop_in_budget: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.rate < 1:
            raise OptionError(f"fmn needs steps of at least 1 and a rate in (0, 1), got {self.steps} and {self.rate}")

    @property
    def passes(self) -> int:
        """Forward and backward passes."""
        return 2 * self.steps + 1

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return the closest misclassified image found for each, or the original."""
        del generator  # nothing here is random
        norm, closest = threat.norm, Closest(x, threat.norm)
        rows, adv = torch.arange(len(x), device=x.device), x
        radius = torch.zeros_like(closest.distance)
        for number in range(self.steps):
            if not len(rows):
                return closest.images
            share = cosine(number, self.steps)
            seen = look(model, adv, y[rows], y[rows], negative_margin, until_broken=False)
            reached = closest.offer(rows, adv, seen.broken)
            radius = self._radius(radius, reached, closest.distance[rows], seen, share, norm)
            left = reached.ne(0) | ~seen.broken  # an image broken as it is cannot get closer
            if self.stop_in_budget:
                left &= ~closest.within(threat.eps)[rows]
            rows, adv, radius, slope = rows[left], adv[left], radius[left], seen.gradient[left]
            step = _length(radius, x, norm) * (share + SLOWEST * (1 - share))
            adv = _inside(adv + step * slope / length(slope).clamp(min=_TINY), x[rows], radius, norm)
        if len(rows):
            closest.offer(rows, adv, misclassified(model, adv, y[rows]))
        return closest.images

    def _radius(self, radius: Tensor, reached: Tensor, found: Tensor, seen: Look, share: float, norm: Norm) -> Tensor:
        """Shrink below the closest so far where broken, else grow; aim behind the boundary while nothing is found."""
        rate = self.rate * (share + TAMEST * (1 - share))
        followed = torch.where(seen.broken, torch.minimum(radius * (1 - rate), found), radius * (1 + rate))
        ahead = reached + seen.margin.abs() / dual_sizes(seen.gradient, norm).clamp(min=_TINY)
        return torch.where(found.isinf(), torch.maximum(ahead, radius) * (1 + rate), followed)


def cosine(number: int, steps: int) -> float:
    """Fall from 1 at step 0 to 0 at step ``steps``.

    Example:
        >>> [round(cosine(number, 4), 2) for number in range(5)]
        [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    return (1 + math.cos(math.pi * number / steps)) / 2


def _length(radius: Tensor, x: Tensor, norm: Norm) -> Tensor:
    """Return the first step length in l2: in linf that to the corner of the ball, whose size so does not matter."""
    return wide(radius * math.sqrt(x[0].numel())) if norm == "linf" else torch.tensor(FIRST_STEP, device=x.device)


def _inside(adv: Tensor, x: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """Project candidates into the balls of ``radius`` ``(n,)`` and the box."""
    delta = adv - x if norm != "l2" else adv.clamp(0, 1) - x  # see Ball.project
    if norm == "l1":
        return (x + shrink_l1(delta, torch.where(delta > 0, 1 - x, x), radius)).clamp(0, 1)
    if norm == "linf":
        bounded = torch.minimum(torch.maximum(delta, -wide(radius)), wide(radius))
    else:
        bounded = delta * wide((radius / sizes(delta, norm).clamp(min=_TINY)).clamp(max=1))
    return (x + bounded).clamp(0, 1)

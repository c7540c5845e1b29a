"""Fast adaptive boundary attack: the closest image behind the boundary, by steps onto its linearisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball, draw_base
from rctk.attacks.closest import Closest, dual_sizes, sizes, wide
from rctk.attacks.hyperplane import step_to_hyperplane
from rctk.attacks.slopes import Slopes, differences, misclassified, slopes
from rctk.attacks.targets import wrong_classes
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError

OVERSHOOT = 1.05
"""Steps go this far, so that they end behind the hyperplane."""
PULL = 0.1
"""Largest weight of the step that starts at the original rather than at the iterate."""
BACK = 0.9
"""From an adversarial iterate the next one starts at this share of the way from the original."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run towards given classes.

    Attributes:
        steps: Iterations.
        eps: An image leaves once its closest adversarial is within this distance; 0 lets none leave.

    Reference:
        Croce and Hein, "Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary Attack", ICML 2020,
        algorithm 1. https://arxiv.org/abs/1907.02044
    """

    steps: int
    eps: float

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, classes: Tensor, start: Tensor, closest: Closest
    ) -> None:
        """Attack all images of ``closest`` that are not within ``eps`` yet.

        Args:
            model: Images to logits.
            x: Originals ``(N, C, H, W)``.
            y: ``(N,)``.
            classes: Wrong classes to make for, ``(N, k)``; each step takes the nearest.
            start: First iterates ``(N, C, H, W)``.
            closest: Receives adversarial images.
        """
        rows = torch.nonzero(~closest.within(self.eps))[:, 0]
        adv = start[rows]
        for _ in range(self.steps):
            if not len(rows):
                return
            seen = slopes(model, adv, differences, y[rows], classes[rows])
            adv = _next(adv, x[rows], seen, closest.norm)
            broken = misclassified(model, adv, y[rows])
            closest.offer(rows, adv, broken)
            adv = torch.where(wide(broken), x[rows] + BACK * (adv - x[rows]), adv)
            left = ~closest.within(self.eps)[rows]
            rows, adv = rows[left], adv[left]


def _next(adv: Tensor, x: Tensor, seen: Slopes, norm: Norm) -> Tensor:
    """Step over the nearest linearised boundary, with a bias towards the original."""
    count = len(adv)
    steepness = dual_sizes(seen.gradients.flatten(0, 1), norm).view_as(seen.values)
    nearest = (seen.values.abs() / (steepness + _TINY)).argmin(dim=1)
    every = torch.arange(count, device=adv.device)
    w, here = seen.gradients[every, nearest].flatten(1), adv.flatten(1)
    b = (w * here).sum(dim=1) - seen.values[every, nearest]
    both = step_to_hyperplane(torch.cat([here, x.flatten(1)]), w.repeat(2, 1), b.repeat(2), norm)
    reach = sizes(both, norm).clamp(min=1e-8)
    share = wide((reach[:count] / (reach[:count] + reach[count:])).clamp(max=PULL))
    step = OVERSHOOT * both.view(2, *adv.shape)
    return ((1 - share) * (adv + step[0]) + share * (x + step[1])).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class FAB:
    """Fast adaptive boundary attack, untargeted: makes for the nearest of the likeliest classes, linf, l2 and l1.

    A minimum-norm attack: it returns the closest adversarial image that it found, wherever that is; the judge then
    projects it into the budget. One gradient per class and step: for many classes ``fab-t`` is cheaper.

    Attributes:
        steps: Iterations per restart.
        restarts: The first starts at the image, the others at random within half the budget.
        classes: Wrong classes to consider, at most, likeliest on the clean image first.
        stop_in_budget: Leave an image once an adversarial inside the budget is found; off, it goes on to the closest.

    Reference:
        See :class:`Run`.
    """

    name: ClassVar[str] = "fab"
    kind: ClassVar[Kind] = "gradient"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    packs: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True

    steps: int = 100
    restarts: int = 1
    classes: int = 9
    stop_in_budget: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts, self.classes) < 1:
            raise OptionError(
                f"fab needs steps, restarts and classes of at least 1, got {self.steps}, {self.restarts} and "
                f"{self.classes}"
            )

    @property
    def passes(self) -> int:
        """Per step two forward passes and one backward pass per class; two more for the clean image."""
        return 2 + self.restarts * self.steps * (2 + self.classes)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return the closest adversarial image found for each, or the original."""
        search = Search.of(model, x, y, threat, generator)
        near = wrong_classes(model, x, y)[:, : self.classes]
        run = Run(steps=self.steps, eps=threat.eps if self.stop_in_budget else 0.0)
        for restart in range(self.restarts):
            run(model, x, y, near, search.start(restart), search.closest)
        return search.closest.images


@dataclass(frozen=True, kw_only=True)
class Search:
    """Where runs start and what they have found."""

    closest: Closest
    start: Callable[[int], Tensor]

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Search:
        """Begin a search; an image that is misclassified as it is counts as found at distance 0."""
        closest, base = Closest(x, threat.norm), draw_base(generator)
        closest.offer(torch.arange(len(x), device=x.device), x, misclassified(model, x, y))
        half = Ball.around(x, ThreatModel(norm=threat.norm, eps=threat.eps / 2))

        def start(number: int) -> Tensor:
            return half.start(base, stream=number, surface=True) if number else x

        return cls(closest=closest, start=start)

"""Fast adaptive boundary attack towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.fab import Run, Search
from rctk.attacks.targets import wrong_classes
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class FABTargeted:
    """Fast adaptive boundary attack, targeted, linf, l2 and l1: one gradient per step, whatever the number of classes.

    A minimum-norm attack: it returns the closest adversarial image that it found, wherever that is; the judge then
    projects it into the budget. Targets are the likeliest wrong classes of the clean image, likeliest first.

    Attributes:
        steps: Iterations per target and restart.
        targets: Wrong classes to try, at most.
        restarts: Per target; the first starts at the image, the others at random within half the budget.
        stop_in_budget: Leave an image once an adversarial inside the budget is found; off, it goes on to the closest.

    Reference:
        Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
        Attacks", ICML 2020, section 4.2. https://arxiv.org/abs/2003.01690
    """

    name: ClassVar[str] = "fab-t"
    kind: ClassVar[Kind] = "gradient"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    packs: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True

    steps: int = 100
    targets: int = 9
    restarts: int = 1
    stop_in_budget: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.targets, self.restarts) < 1:
            raise OptionError(
                f"fab-t needs steps, targets and restarts of at least 1, got {self.steps}, {self.targets} and "
                f"{self.restarts}"
            )

    @property
    def passes(self) -> int:
        """Three per step; two more for the clean image."""
        return 2 + 3 * self.targets * self.restarts * self.steps

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return the closest adversarial image found for each, or the original."""
        search = Search.of(model, x, y, threat, generator)
        targets = wrong_classes(model, x, y)[:, : self.targets]
        run = Run(steps=self.steps, eps=threat.eps if self.stop_in_budget else 0.0)
        for target in range(targets.shape[1]):
            for restart in range(self.restarts):
                run(model, x, y, targets[:, target : target + 1], search.start(restart), search.closest)
        return search.closest.images

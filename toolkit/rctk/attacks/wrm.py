"""The ascent of distributionally robust training: loss against squared distance, without a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.gradients import look
from rctk.attacks.losses import cross_entropy
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class WRM:
    """Gradient ascent on the cross-entropy minus a multiple of the squared l2 distance.

    It has no budget: how far it goes follows from ``strength`` and the model. Compare models at equal mean l2 distance,
    by :func:`rctk.evaluation.minimum_norm.minimum_norm`, rather than as robust accuracy; the judge projects what it
    returns into the budget like any candidate.

    Attributes:
        steps: Gradient steps after the first.
        strength: Length of the first step per unit of gradient, 1 / (2 gamma) for the penalty gamma; the authors take
            0.3, and 1.3 on MNIST.

    Reference:
        Sinha et al., "Certifying Some Distributional Robustness with Principled Adversarial Training", ICLR 2018,
        eq. 2 and algorithm 1. https://arxiv.org/abs/1710.10571
    """

    name: ClassVar[str] = "wrm"
    kind: ClassVar[Kind] = "gradient"
    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf", "l1")
    packs: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True

    steps: int = 15
    strength: float = 0.3

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.strength < float("inf"):
            raise OptionError(
                f"wrm needs steps of at least 0 and a positive strength, got {self.steps} and {self.strength}"
            )

    @property
    def passes(self) -> int:
        """Forward and backward passes."""
        return 2 * (self.steps + 1)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return the last iterate of each image in [0, 1]; one that is misclassified as it is stays."""
        del threat, generator  # no budget, and nothing here is random
        first = look(model, x, y, y, cross_entropy)
        adv = x + self.strength * first.gradient
        for number in range(self.steps):
            slope = look(model, adv, y, y, cross_entropy, until_broken=False).gradient
            adv = adv + (self.strength * slope - (adv - x)) / (number + 2) ** 0.5
        return torch.where(first.broken[:, None, None, None], x, adv.clamp(0, 1))

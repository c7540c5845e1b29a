"""Fast adversarial training with aligned gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.train.inner import Adversarial, summed_cross_entropy
from rctk_kernels.errors import OptionError

LEVELS = (1.0, 4.0, 8.0, 12.0, 16.0)
WEIGHTS = (0.027, 0.063, 0.2, 0.632, 2.0)
"""The authors' weights at budgets of so many 255ths."""


@dataclass(frozen=True, kw_only=True)
class GradAlign(Adversarial):
    """One full step without a random start, and a penalty where the gradient turns within the budget.

    The penalty differentiates a gradient. Through rounding that is undefined: not for quantized models.

    Attributes:
        weight: Of the penalty; ``none`` for the authors' weight at this budget, log-linear between theirs.

    Reference:
        Andriushchenko and Flammarion, "Understanding and Improving Fast Adversarial Training", NeurIPS 2020, eq. 5.
        https://arxiv.org/abs/2007.02617
    """

    name: ClassVar[str] = "gradalign"

    steps: int = 1
    step_size: float = 1.25
    weight: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps != 1:
            raise OptionError(f"gradalign takes one step, got steps={self.steps}; pgd-at takes more")
        if self.weight is not None and not 0 <= self.weight < math.inf:
            raise OptionError(f"gradalign:weight must be a number from 0 on, got {self.weight}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return cross-entropy and penalty; see :class:`rctk.train.objective.Objective`."""
        with self.in_attack_mode(model):
            here = _gradient(model, x, y)
            noise = (2 * torch.rand(x.shape, generator=generator) - 1).to(x)
            there = _gradient(model, x + self.eps * noise, y, create_graph=True)
        length = min(self.step_size, 1.0) * self.eps
        adversarial = (x + length * here.sign()).clamp(0, 1)
        weight = penalty_weight(self.eps) if self.weight is None else self.weight
        return F.cross_entropy(model(adversarial), y) + weight * misalignment(here, there)


def misalignment(here: Tensor, there: Tensor) -> Tensor:
    """Return the mean of one minus the cosine between gradients; images where one of them is zero are left out.

    Example:
        >>> misalignment(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.0, 1.0]]))
        tensor(1.)
    """
    here, there = here.flatten(1), there.flatten(1)
    known = (here != 0).any(dim=1) & (there != 0).any(dim=1)
    if not bool(known.any()):
        return (there * 0).sum()
    return (1 - F.cosine_similarity(here[known], there[known], dim=1)).mean()


def penalty_weight(eps: float) -> float:
    """Return the authors' weight for a budget on images in [0, 1]; beyond their budgets the nearest one.

    Example:
        >>> round(penalty_weight(8 / 255), 3), round(penalty_weight(6 / 255), 3)
        (0.2, 0.112)
    """
    return float(np.exp(np.interp(eps * 255, LEVELS, np.log(WEIGHTS))))


def _gradient(model: nn.Module, x: Tensor, y: Tensor, *, create_graph: bool = False) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(summed_cross_entropy(model(x), y), x, create_graph=create_graph)
    return gradient

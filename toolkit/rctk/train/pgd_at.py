"""Adversarial training with projected gradient descent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.train.inner import InnerPgd, modes_kept
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class PgdAt:
    """Cross-entropy on the worst images that a short linf attack finds around each batch.

    While attacking, BatchNorm is in evaluation mode by default: its running statistics then come from the images that
    are trained on, once per step, and the attack sees the network that will be deployed. ``train`` is the original
    recipe.

    Attributes:
        eps: Budget on images in [0, 1].
        steps: Gradient steps of the attack.
        step_size: Length of one step as a share of ``eps``.
        attack_mode: Mode of the model while it is attacked.

    Reference:
        Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
        https://arxiv.org/abs/1706.06083 . Evaluation mode while attacking: Pang et al., "Bag of Tricks for Adversarial
        Training", ICLR 2021. https://arxiv.org/abs/2010.00467
    """

    eps: float = 8 / 255
    steps: int = 10
    step_size: float = 0.25
    attack_mode: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        if not (0 < self.eps <= 1 and self.steps >= 1 and 0 < self.step_size < math.inf):
            raise OptionError(f"pgd-at needs 0 < eps <= 1, steps >= 1 and step_size > 0, got {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean cross-entropy on attacked images; see :class:`rctk.train.objective.Objective`."""
        with modes_kept(model):
            model.train(self.attack_mode == "train")
            attack = InnerPgd(eps=self.eps, steps=self.steps, step_size=self.step_size)
            adversarial = attack(model, x, y, generator)
        return F.cross_entropy(model(adversarial), y)

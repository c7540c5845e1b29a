"""MixUp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class MixUp:
    """Blend each image and its label with another one of the batch, by a share that the batch has in common.

    Attributes:
        alpha: The share is drawn from Beta(alpha, alpha); 1 for CIFAR, 1.4 with adversarial training.

    Reference:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. https://arxiv.org/abs/1710.09412
    """

    mixes: ClassVar[bool] = True

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise OptionError(f"mixup:alpha must be positive, got {self.alpha}")

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Blend images and labels; see :class:`rctk.train.augmentation.Augmentation`."""
        share = draw_beta(self.alpha, generator)
        others = torch.randperm(len(x), generator=generator).to(x.device)
        return share * x + (1 - share) * x[others], share * y + (1 - share) * y[others]


def draw_beta(alpha: float, generator: torch.Generator) -> float:
    """Draw one number from Beta(``alpha``, ``alpha``)."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))

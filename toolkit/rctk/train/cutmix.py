"""CutMix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rctk.train.mixup import draw_beta
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class CutMix:
    """Paste a box of another image of the batch; the label is shared by area. The batch has the box in common.

    Attributes:
        alpha: The share of the image that stays is drawn from Beta(alpha, alpha).
        probability: Share of the batches that are changed: 0.5 for CIFAR, 1 for ImageNet in the paper.

    Reference:
        Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019.
        https://arxiv.org/abs/1905.04899
    """

    mixes: ClassVar[bool] = True

    alpha: float = 1.0
    probability: float = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.alpha < math.inf and 0 < self.probability <= 1):
            raise OptionError(f"cutmix needs alpha > 0 and 0 < probability <= 1, got {self.alpha}, {self.probability}")

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Paste boxes; see :class:`rctk.train.augmentation.Augmentation`."""
        if float(torch.rand((), generator=generator)) >= self.probability:
            return x, y
        side = math.sqrt(1 - draw_beta(self.alpha, generator))
        others = torch.randperm(len(x), generator=generator).to(x.device)
        (top, bottom), (left, right) = (_range(size, side, generator) for size in x.shape[2:])
        mixed = x.clone()
        mixed[:, :, top:bottom, left:right] = x[others, :, top:bottom, left:right]
        pasted = (bottom - top) * (right - left) / (x.shape[2] * x.shape[3])
        return mixed, (1 - pasted) * y + pasted * y[others]


def _range(size: int, share: float, generator: torch.Generator) -> tuple[int, int]:
    """Draw a range around any pixel of ``size``, ``share`` of it long, cut off at the rim."""
    centre = int(torch.randint(size, (), generator=generator))
    half = int(size * share) // 2
    return max(0, centre - half), min(size, centre + half)

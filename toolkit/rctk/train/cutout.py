"""Cutout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """Cover a square of each image, centred on any of its pixels, so that parts of it may lie outside.

    Attributes:
        size: Side of the square in pixels: 16 for CIFAR-10, 8 for CIFAR-100, 20 for SVHN in the paper.
        fill: Value that covers it, in [0, 1].

    Reference:
        DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017, whose squares
        have the mean colour. https://arxiv.org/abs/1708.04552
    """

    mixes: ClassVar[bool] = False

    size: int = 16
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.fill <= 1:
            raise OptionError(f"cutout needs size >= 1 and fill in [0, 1], got {self.size} and {self.fill}")

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cover squares; see :class:`rctk.train.augmentation.Augmentation`."""
        count, _, height, width = x.shape
        if self.size >= 2 * min(height, width):
            raise OptionError(
                f"cutout:size of {self.size} pixels covers whole {height}x{width} images wherever it lies; choose less "
                f"than {min(height, width)}"
            )
        top, left = (
            torch.randint(0, side, (count, 1), generator=generator).to(x.device) - self.size // 2
            for side in (height, width)
        )
        rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        inside = (rows >= top) & (rows < top + self.size)
        across = (columns >= left) & (columns < left + self.size)
        return x.masked_fill((inside[:, :, None] & across[:, None, :])[:, None], self.fill), y

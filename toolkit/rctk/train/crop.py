"""Random crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Shift each image by a few pixels in each direction; black fills the rim.

    Attributes:
        padding: Largest shift in pixels, less than the side of an image; the 4 of CIFAR are too many for an 8x8 image.
    """

    mixes: ClassVar[bool] = False

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 1:
            raise OptionError(f"crop:padding must be at least 1, got {self.padding}")

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Shift images; see :class:`rctk.train.augmentation.Augmentation`."""
        count, _, height, width = x.shape
        if self.padding >= min(height, width):
            raise OptionError(
                f"crop:padding of {self.padding} pixels would shift whole {height}x{width} images out of sight; "
                f"choose less than {min(height, width)}"
            )
        padded = F.pad(x, (self.padding,) * 4)
        top, left = torch.randint(0, 2 * self.padding + 1, (2, count), generator=generator).to(x.device)
        rows = top[:, None] + torch.arange(height, device=x.device)
        columns = left[:, None] + torch.arange(width, device=x.device)
        images = torch.arange(count, device=x.device)
        pixels = padded.permute(0, 2, 3, 1)[images[:, None, None], rows[:, :, None], columns[:, None, :]]
        return pixels.permute(0, 3, 1, 2), y

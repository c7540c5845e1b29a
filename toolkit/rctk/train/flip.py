"""Random flips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Mirror half of the images left to right."""

    mixes: ClassVar[bool] = False

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mirror images; see :class:`rctk.train.augmentation.Augmentation`."""
        mirrored = (torch.rand(len(x), generator=generator) < 0.5).to(x.device)
        return torch.where(mirrored[:, None, None, None], x.flip(3), x), y

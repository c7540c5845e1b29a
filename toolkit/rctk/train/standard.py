"""Ordinary training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Standard:
    """Cross-entropy on clean images."""

    eps: ClassVar[float] = 0.0

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return the mean cross-entropy; see :class:`rctk.train.objective.Objective`."""
        return F.cross_entropy(model(x), y)

"""Ordinary training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Standard:
    """Cross-entropy on clean images.

    Attributes:
        label_smoothing: Share of each label that is spread over all classes.
    """

    eps: ClassVar[float] = 0.0

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise OptionError(f"standard:label_smoothing must lie in [0, 1), got {self.label_smoothing}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return the mean cross-entropy; see :class:`rctk.train.objective.Objective`."""
        return F.cross_entropy(model(x), y, label_smoothing=self.label_smoothing)

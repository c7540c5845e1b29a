"""A model for images in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rctk_export.input_spec import InputSpec


class Normalised(nn.Module):
    """Subtracts the mean, divides by the standard deviation, and calls the module that expects such images."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        mean, std = spec.mean_std()
        self.register_buffer("mean", torch.from_numpy(mean), persistent=False)
        self.register_buffer("std", torch.from_numpy(std), persistent=False)
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` in [0, 1] to logits ``(N, K)``, in the type of the images under autocast too."""
        logits: Tensor = self.module((x - self.mean) / self.std)
        return logits.to(x.dtype)

"""A model that ends in a softmax, as logits again."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

SMALLEST = 1e-12


class LogModel(nn.Module):
    """The logarithm of a model's probabilities: its logits up to a constant per image.

    Probabilities below 1e-12 give no gradient: what the softmax rounded away is lost.

    Example:
        >>> LogModel(nn.Softmax(dim=1))(torch.tensor([[1.0, 3.0]])).diff()
        tensor([[2.]])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, K)``."""
        return torch.log(cast("Tensor", self.model(images)).clamp_min(SMALLEST))

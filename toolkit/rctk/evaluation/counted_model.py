"""Counts images that go forward and backward through a torch model."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CountedModel(nn.Module):
    """A model that behaves like the one inside and counts.

    Attributes:
        forward_images: Images classified.
        backward_images: Images for which a gradient came back to the input.
        batch_size: Most images that an attack may put in at once; absent where nobody said.
        zero_gradients: Those among them whose gradient was zero in every pixel: there the attack was blind.
    """

    def __init__(self, model: nn.Module, batch_size: int | None = None) -> None:
        super().__init__()
        self.model = model
        if batch_size is not None:
            self.batch_size = batch_size
        self.training = model.training
        self.forward_images = 0
        self.backward_images = 0
        self.zero_gradients = 0

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of ``images`` ``(N, C, H, W)``."""
        self.forward_images += len(images)
        if torch.is_grad_enabled() and images.requires_grad:
            images = images.view_as(images)
            images.register_hook(self._arrived)
        logits: Tensor = self.model(images)
        return logits

    def _arrived(self, gradient: Tensor) -> None:
        self.backward_images += len(gradient)
        self.zero_gradients += int((gradient.flatten(1) == 0).all(dim=1).sum())

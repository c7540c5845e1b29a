"""Counts images that go forward and backward through a torch model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rctk.attacks.beside import Beside


@dataclass
class Tally:
    """Counts of images.

    Attributes:
        forward: Images classified.
        backward: Images for which a gradient came back to the input.
        zero_gradients: Those among them whose gradient was zero in every pixel: there the attack was blind.
    """

    forward: int = 0
    backward: int = 0
    zero_gradients: int = 0


class CountedModel(nn.Module):
    """A model that behaves like the one inside and counts.

    Attributes:
        batch_size: Most images that an attack may put in at once; absent where nobody said.
        reference: The model beside the one inside, counted together with it; absent where there is none.
    """

    def __init__(self, model: nn.Module, batch_size: int | None = None, tally: Tally | None = None) -> None:
        super().__init__()
        self.model = model
        self._tally = tally or Tally()
        if batch_size is not None:
            self.batch_size = batch_size
        if isinstance(model, Beside):
            self.reference = CountedModel(model.reference, batch_size, self._tally)
        self.training = model.training

    @property
    def forward_images(self) -> int:
        """Images classified."""
        return self._tally.forward

    @property
    def backward_images(self) -> int:
        """Images for which a gradient came back to the input."""
        return self._tally.backward

    @property
    def zero_gradients(self) -> int:
        """Gradients that were zero in every pixel."""
        return self._tally.zero_gradients

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of ``images`` ``(N, C, H, W)``."""
        self._tally.forward += len(images)
        if torch.is_grad_enabled() and images.requires_grad:
            images = images.view_as(images)
            images.register_hook(self._arrived)
        logits: Tensor = self.model(images)
        return logits

    def _arrived(self, gradient: Tensor) -> None:
        self._tally.backward += len(gradient)
        self._tally.zero_gradients += int((gradient.flatten(1) == 0).all(dim=1).sum())

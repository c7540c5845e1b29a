"""Free adversarial training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class FreeAt:
    """Several steps on each batch; every backward pass moves the weights and the perturbation.

    The perturbation goes on from replay to replay and from batch to batch. An epoch holds ``replays`` steps per batch,
    so ask for so many times fewer epochs than elsewhere.

    Attributes:
        eps: Budget on images in [0, 1], and length of a step.
        replays: Steps on each batch.

    Reference:
        Shafahi et al., "Adversarial Training for Free!", NeurIPS 2019, algorithm 1. https://arxiv.org/abs/1904.12843
    """

    eps: float = 8 / 255
    replays: int = 8

    def __post_init__(self) -> None:
        if not (0 < self.eps <= 1 and self.replays >= 1):
            raise OptionError(
                f"free-at needs 0 < eps <= 1 (images are in [0, 1]: write 8/255) and replays >= 1, got "
                f"{self.eps:g} and {self.replays}"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return the loss of a run's very first step; see :class:`rctk.train.objective.Objective`."""
        return self.replay(model, x, y, {})

    def replay(self, model: nn.Module, x: Tensor, y: Tensor, carried: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy; its backward pass moves ``carried["delta"]``.

        See :class:`rctk.train.objective.Replaying`.
        """
        delta = carried.setdefault("delta", torch.zeros_like(x))[: len(x)]
        attacked = (x + delta).clamp(0, 1).requires_grad_()

        def move(gradient: Tensor) -> None:
            delta.add_(gradient.sign().nan_to_num(), alpha=self.eps).clamp_(-self.eps, self.eps)

        attacked.register_hook(move)
        return F.cross_entropy(model(attacked), y)

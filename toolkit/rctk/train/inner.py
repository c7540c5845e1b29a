"""The inner maximisation of adversarial training; reported robustness comes from the attacks and the judge instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class InnerPgd:
    """Ascends the cross-entropy by sign steps from a uniform start; linf.

    Attributes:
        eps: Radius; all iterates stay within it and within [0, 1].
        steps: Gradient steps.
        step_size: Length of one step as a share of ``eps``.
    """

    eps: float
    steps: int
    step_size: float

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the last iterate.

        Only the gradient with respect to the images is computed: parameters keep the ``.grad`` that they have.

        Args:
            model: Maps images in [0, 1] to logits, in whatever mode it is.
            x: ``(N, C, H, W)`` in [0, 1].
            y: ``(N,)``.
            generator: On the CPU.
        """
        low, high = (x - self.eps).clamp(min=0), (x + self.eps).clamp(max=1)
        start = torch.rand(x.shape, generator=generator).to(x)
        adversarial = low + (high - low) * start
        for _ in range(self.steps):
            adversarial.requires_grad_()
            loss = F.cross_entropy(model(adversarial), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, adversarial)
            adversarial = adversarial.detach() + self.step_size * self.eps * gradient.sign()
            adversarial = torch.minimum(torch.maximum(adversarial, low), high)
        return adversarial


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Give every submodule its own mode back afterwards; one ``model.train()`` would wake frozen BatchNorm."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

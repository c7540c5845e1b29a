"""The inner maximisation of adversarial training; reported robustness comes from the attacks and the judge instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk_kernels.errors import OptionError

SCALE = 1024.0
"""A power of two leaves signs as they are and keeps small gradients above what float16 can hold."""
GAUSSIAN = 0.001
"""Standard deviation of the start that TRADES uses."""


def summed_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy, summed so that no image's gradient depends on how many others there are."""
    return F.cross_entropy(logits, y, reduction="sum")


@dataclass(frozen=True, kw_only=True)
class InnerPgd:
    """Ascends a loss by sign steps; linf.

    Attributes:
        eps: Radius; all iterates stay within it and within [0, 1].
        steps: Gradient steps.
        step_size: Length of one step as a share of ``eps``.
        start: ``uniform`` in the ball, or ``gaussian``: a thousandth of the range around the image.
    """

    eps: float
    steps: int
    step_size: float
    start: Literal["uniform", "gaussian"] = "uniform"

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator,
        loss: Callable[[Tensor, Tensor], Tensor] = summed_cross_entropy,
    ) -> Tensor:
        """Return the last iterate.

        Only the gradient with respect to the images is computed: parameters keep the ``.grad`` that they have.

        Args:
            model: Maps images in [0, 1] to logits, in whatever mode it is.
            x: ``(N, C, H, W)`` in [0, 1].
            y: ``(N,)``, or shares of the classes ``(N, K)``.
            generator: On the CPU.
            loss: ``(logits, y) -> scalar``, summed over images.
        """
        low, high = (x - self.eps).clamp(min=0), (x + self.eps).clamp(max=1)
        adversarial = self._first(x, low, high, generator)
        for _ in range(self.steps):
            adversarial.requires_grad_()
            (gradient,) = torch.autograd.grad(SCALE * loss(model(adversarial), y), adversarial)
            adversarial = adversarial.detach() + self.step_size * self.eps * gradient.sign()
            adversarial = torch.minimum(torch.maximum(adversarial, low), high)
        return adversarial

    def _first(self, x: Tensor, low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
        if self.start == "uniform":
            return low + (high - low) * torch.rand(x.shape, generator=generator).to(x)
        noise = GAUSSIAN * torch.randn(x.shape, generator=generator).to(x)
        return torch.minimum(torch.maximum(x + noise, low), high)


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """What objectives that attack each batch have in common.

    While attacking, BatchNorm is in evaluation mode by default: its running statistics then come from the images that
    are trained on, once per step, and the attack sees the network that will be deployed (Pang et al., "Bag of Tricks
    for Adversarial Training", ICLR 2021, https://arxiv.org/abs/2010.00467).

    Attributes:
        eps: Budget on images in [0, 1].
        steps: Gradient steps of the attack.
        step_size: Length of one step as a share of ``eps``.
        attack_mode: Mode of the model while it is attacked.
    """

    name: ClassVar[str]
    start: ClassVar[Literal["uniform", "gaussian"]] = "uniform"

    eps: float = 8 / 255
    steps: int = 10
    step_size: float = 0.25
    attack_mode: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        if not (0 < self.eps <= 1 and self.steps >= 1 and 0 < self.step_size < math.inf):
            raise OptionError(
                f"{self.name} needs 0 < eps <= 1 (images are in [0, 1]: write 8/255), steps >= 1 and step_size > 0, "
                f"got eps={self.eps:g}, steps={self.steps}, step_size={self.step_size:g}"
            )

    def attacked(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator,
        loss: Callable[[Tensor, Tensor], Tensor] = summed_cross_entropy,
    ) -> Tensor:
        """Return adversarial images ``(N, C, H, W)``; arguments as in :class:`InnerPgd`."""
        attack = InnerPgd(eps=self.eps, steps=self.steps, step_size=self.step_size, start=self.start)
        with self.in_attack_mode(model):
            return attack(model, x, y, generator, loss)

    @contextmanager
    def in_attack_mode(self, model: nn.Module) -> Iterator[None]:
        """Put the model into ``attack_mode`` for the block."""
        with modes_kept(model):
            model.train(self.attack_mode == "train")
            yield


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Give every submodule its own mode back afterwards; one ``model.train()`` would wake frozen BatchNorm."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

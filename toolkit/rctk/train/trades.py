"""TRADES."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.train.inner import Adversarial
from rctk_kernels.errors import OptionError


def divergence(logits: Tensor, log_clean: Tensor) -> Tensor:
    """Return KL(clean || attacked) per image, ``(N,)``, from logits and clean log probabilities, both ``(N, K)``."""
    return F.kl_div(logits.log_softmax(dim=1), log_clean, log_target=True, reduction="none").sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class Trades(Adversarial):
    """Cross-entropy on clean images, and how far answers move under attack.

    The attack raises the divergence itself and knows no label. Gradients reach both of its sides.

    Attributes:
        beta: Weight of the divergence; 6 for CIFAR-10, 1 for MNIST.

    Reference:
        Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019, eq. 5, with
        eps 0.031 and steps of 0.007. https://arxiv.org/abs/1901.08573
    """

    name: ClassVar[str] = "trades"
    start: ClassVar[Literal["uniform", "gaussian"]] = "gaussian"

    step_size: float = 0.225
    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < math.inf:
            raise OptionError(f"trades:beta must be a number from 0 on, got {self.beta}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean over the batch; see :class:`rctk.train.objective.Objective`."""
        with self.in_attack_mode(model), torch.no_grad():
            target = model(x).log_softmax(dim=1)
        adversarial = self.attacked(model, x, target, generator, lambda logits, clean: divergence(logits, clean).sum())
        logits = model(x)
        moved = divergence(model(adversarial), logits.log_softmax(dim=1)).mean()
        return F.cross_entropy(logits, y) + self.beta * moved

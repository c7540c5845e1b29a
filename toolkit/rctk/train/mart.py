"""Misclassification-aware adversarial training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from rctk.train.inner import Adversarial
from rctk.train.trades import divergence
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Mart(Adversarial):
    """A boosted cross-entropy on attacked images; images that are wrong anyway count more in the divergence.

    Small margins come with it and can mask gradients: of the methods that AutoAttack examined, its claims fell most.

    Attributes:
        weight: Of the divergence; 6 for WRN-34-10, 5 for ResNet-18.

    Reference:
        Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified Examples", ICLR 2020, eq. 11.
        https://openreview.net/forum?id=rklOg6EFwS
    """

    name: ClassVar[str] = "mart"
    start: ClassVar[Literal["uniform", "gaussian"]] = "gaussian"
    mixed_labels: ClassVar[bool] = False

    step_size: float = 0.225
    weight: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.weight < math.inf:
            raise OptionError(f"mart:weight must be a number from 0 on, got {self.weight}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean over the batch; see :class:`rctk.train.objective.Objective`."""
        if y.ndim != 1:
            raise OptionError("mart needs one class per image; leave mixup and cutmix out")
        adversarial = self.attacked(model, x, y, generator)
        logits, attacked = model(x), model(adversarial)
        log_clean = logits.log_softmax(dim=1)
        wrong = 1 - log_clean.gather(1, y[:, None])[:, 0].exp()
        loss: Tensor = boosted_cross_entropy(attacked, y) + self.weight * wrong * divergence(attacked, log_clean)
        return loss.mean()


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return ``-log p_y - log(1 - p_j)`` per image, ``(N,)``; ``j`` is the likeliest wrong class.

    The second term is the log-sum of all other exponentials below that of all, which cannot overflow.

    Example:
        >>> boosted_cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([0])) / math.log(2)
        tensor([2.])
    """
    true = logits.gather(1, y[:, None])[:, 0]
    rival = logits.scatter(1, y[:, None], -torch.inf).argmax(dim=1, keepdim=True)
    others = logits.scatter(1, rival, -torch.inf)
    return 2 * logits.logsumexp(dim=1) - true - others.logsumexp(dim=1)

"""Training on clean and attacked images together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.train.inner import Adversarial
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class AdvMix(Adversarial):
    """Cross-entropy on clean images plus ``weight`` times that on attacked ones.

    Attributes:
        weight: Of the attacked images; the paper's lambda.
        normalised: Divide by ``1 + weight``, which keeps the size of a step.
        bn: What BatchNorm normalises a batch with while it trains: ``joint`` statistics of clean and attacked images in
            one forward pass, or ``dual``, each with its own. Scales and shifts are shared. There is one set of running
            statistics, which is deployed: it averages both, attacked images with ``1 / (2 - momentum)``, 0.53.

    Reference:
        Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015, section 6,
        https://arxiv.org/abs/1412.6572 ; with PGD and this weighting in Darvishzadeh et al., eq. 10.
    """

    name: ClassVar[str] = "adv-mix"

    weight: float = 1.0
    normalised: bool = False
    bn: Literal["joint", "dual"] = "joint"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.weight < math.inf:
            raise OptionError(f"adv-mix:weight must be a number from 0 on, got {self.weight}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the weighted sum of both means; see :class:`rctk.train.objective.Objective`."""
        adversarial = self.attacked(model, x, y, generator)
        if self.bn == "joint":
            clean, attacked = model(torch.cat([x, adversarial])).chunk(2)
        else:
            clean, attacked = model(x), model(adversarial)
        loss = F.cross_entropy(clean, y) + self.weight * F.cross_entropy(attacked, y)
        return loss / (1 + self.weight) if self.normalised else loss

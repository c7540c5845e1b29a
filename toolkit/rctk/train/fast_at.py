"""Fast adversarial training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.train.inner import Adversarial, InnerPgd
from rctk_kernels.errors import OptionError

WATCH_STEPS, WATCH_STEP = 5, 0.25
"""Gradient steps of the attack that watches, and the length of one as a share of ``eps``."""


@dataclass(frozen=True, kw_only=True)
class FastAt(Adversarial):
    """Cross-entropy on images after one long step from a random start.

    Such training can collapse within an epoch: the one step stays harmless, several steps break everything. So the
    accuracy under PGD-5 on some training images is watched after every epoch; when it falls by more than ``max_drop``
    the run stops with the weights of the epoch before.

    Attributes:
        max_drop: Fall that counts as a collapse, a share.

    Reference:
        Wong et al., "Fast is Better than Free: Revisiting Adversarial Training", ICLR 2020.
        https://arxiv.org/abs/2001.03994
    """

    name: ClassVar[str] = "fast-at"

    steps: int = 1
    step_size: float = 1.25
    attack_mode: Literal["eval", "train"] = "train"
    max_drop: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.max_drop <= 1:
            raise OptionError(f"fast-at:max_drop must lie in (0, 1], got {self.max_drop}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean cross-entropy on attacked images; see :class:`rctk.train.objective.Objective`."""
        return F.cross_entropy(model(self.attacked(model, x, y, generator)), y)

    def watched(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        """Return the accuracy under PGD-5; see :class:`rctk.train.objective.Guarded`."""
        attack = InnerPgd(eps=self.eps, steps=WATCH_STEPS, step_size=WATCH_STEP)
        adversarial = attack(model, x, y, generator)
        with torch.no_grad():
            return float((model(adversarial).argmax(dim=1) == y).float().mean())

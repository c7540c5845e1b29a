"""Basic iterative method: FGSM in small steps, from the image itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball
from rctk.attacks.best import Best
from rctk.attacks.pgd import PGD, Asked
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class BIM:
    """Iterated gradient sign steps on the cross-entropy without a random start, linf and l2.

    Attributes:
        steps: Gradient steps.
        step_size: Length of one step as a share of ``eps``.
        stop_at_success: Leave an image once it is broken; off, it goes on to the smallest margin.

    Reference:
        Kurakin et al., "Adversarial Examples in the Physical World", ICLR workshop 2017, eq. 2.
        https://arxiv.org/abs/1607.02533
    """

    name: ClassVar[str] = "bim"
    kind: ClassVar[Kind] = "gradient"
    packs: ClassVar[bool] = True

    steps: int = 10
    step_size: float = 0.25
    stop_at_success: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.step_size < float("inf"):
            raise OptionError(f"bim needs steps of at least 1 of a positive size, got {self.steps} of {self.step_size}")

    @property
    def passes(self) -> int:
        """Forward and backward passes."""
        return 2 * self.steps + 1

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return for every image the iterate with the smallest margin."""
        del generator  # nothing here is random
        best, rows = Best(x), torch.arange(len(x), device=x.device)
        loop = PGD(steps=self.steps, step_size=self.step_size, stop_at_success=self.stop_at_success)
        if len(x):
            loop.descend(model, Ball.around(x, threat), Asked(rows, y, y), x, best)
        return best.images

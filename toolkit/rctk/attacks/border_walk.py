"""Walk to the border of two models and along it until they disagree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.beside import reference_of
from rctk.attacks.gradients import Look, look
from rctk.attacks.losses import negative_margin
from rctk.attacks.walk import Gap, search
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class BorderWalk:
    """Raise the smaller of two margins: of the true class in a reference, of a wrong class in the model; linf and l2.

    Both are positive exactly where the model is wrong and the reference right. The gradient of the smaller one leads to
    the border, where steps of falling length go to and fro between the two models; a difference of chances, as DIVA
    climbs, is largest far from it, where both agree again. Ours; it is the ``disagreement`` search with gradients.
    Runs on a :class:`rctk.attacks.beside.Beside`, as DIVA does.

    Attributes:
        steps: Gradient steps, from the original image.
        step_size: Length of the first step as a share of ``eps``; the others fall to 0 in a line.
        stop_at_success: Leave an image once the model is fooled and the reference is not.
    """

    name: ClassVar[str] = "border-walk"
    kind: ClassVar[Kind] = "gradient"
    needs_reference: ClassVar[bool] = True

    steps: int = 50
    step_size: float = 0.125
    stop_at_success: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"border-walk:steps must be at least 1, got {self.steps}")
        if not 0 < self.step_size < float("inf"):
            raise OptionError(f"border-walk:step_size is a positive share of eps, got {self.step_size}")

    @property
    def passes(self) -> int:
        """Forward and backward passes of both models."""
        return 4 * (self.steps + 1)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return for every image an evasive iterate, or else the one with the highest score."""
        del generator  # nothing here is random
        return search(self, model, reference_of(model, self.name), x, y, threat, stop=self.stop_at_success)

    def see(self, model: nn.Module, reference: nn.Module, x: Tensor, y: Tensor) -> Gap:
        """Return the smaller of the two margins."""
        under, beside = _margin(model, x, y), _margin(reference, x, y)
        lower = (beside.margin < -under.margin)[:, None, None, None]
        return Gap(
            score=torch.minimum(beside.margin, -under.margin),
            evasive=under.broken & ~beside.broken,
            gradient=torch.where(lower, -beside.gradient, under.gradient),
        )

    def stride(self, step: int) -> float:
        """Return a length that falls to 0 after the last step."""
        return self.step_size * (1 - step / (self.steps + 1))


def _margin(model: nn.Module, x: Tensor, y: Tensor) -> Look:
    return look(model, x, y, y, negative_margin, until_broken=False)

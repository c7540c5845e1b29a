"""Differential evasion: fool a deployed model where the model it was made from notices nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.beside import reference_of
from rctk.attacks.gradients import input_gradient
from rctk.attacks.walk import Gap, search
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class DIVA:
    """Gradient ascent on how much surer of the true class a reference is than the model under attack, linf and l2.

    Runs on a :class:`rctk.attacks.beside.Beside`: the twin of an engine with the float model beside it finds images
    that the engine gets wrong and a float monitor does not see, and the reverse the reverse. It measures the gap
    between two forms of a model, not the robustness of either. ``border-walk`` finds several times as many.

    Attributes:
        steps: Gradient steps, from the original image.
        step_size: Length of one step as a share of ``eps``.
        balance: Weight ``c`` of the model under attack.
        stop_at_success: Leave an image once the model is fooled and the reference is not.

    Reference:
        Hao et al., "Tale of Two Models: Constructing Evasive Attacks on Edge Models", MLSys 2022, eq. 5.
        https://arxiv.org/abs/2204.10933
    """

    name: ClassVar[str] = "diva"
    kind: ClassVar[Kind] = "gradient"
    needs_reference: ClassVar[bool] = True

    steps: int = 20
    step_size: float = 0.125
    balance: float = 1.0
    stop_at_success: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"diva:steps must be at least 1, got {self.steps}")
        if not 0 < self.step_size < float("inf"):
            raise OptionError(f"diva:step_size is a positive share of eps, got {self.step_size}")
        if not 0 < self.balance < float("inf"):
            raise OptionError(f"diva:balance must be positive, got {self.balance}")

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
        """Return chance of the true class in the reference minus ``balance`` times that in the model."""
        chance, right, slope = _true_class(model, x, y)
        beside, unaware, beside_slope = _true_class(reference, x, y)
        return Gap(
            score=beside - self.balance * chance,
            evasive=unaware & ~right,
            gradient=beside_slope - self.balance * slope,
        )

    def stride(self, step: int) -> float:
        """Return the same length for every step."""
        del step
        return self.step_size


def _true_class(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the chance of the true class, whether it is the predicted one, and the gradient of the chance.

    Chances are taken in float64, where a confident model still has a gradient.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits: Tensor = model(leaf)
        chance = logits.double().softmax(dim=1).gather(1, y[:, None])[:, 0]
        slope = input_gradient(chance.sum(), leaf)
    return chance.detach().to(x.dtype), logits.detach().argmax(dim=1) == y, slope

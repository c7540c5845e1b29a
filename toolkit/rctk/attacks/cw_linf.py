"""Carlini and Wagner's minimum-norm attack in linf."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.closest import Closest, wide
from rctk.attacks.slopes import misclassified
from rctk.attacks.tanh_space import Descent, shortfall
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError

SHRINK = 0.9
"""After a success, the next limit as a share of the largest change."""
LARGEST_WEIGHT = 20.0


@dataclass
class _State:
    """The images that are left."""

    rows: Tensor
    limit: Tensor  # change of a pixel that costs nothing yet
    weight: Tensor
    since: Tensor  # steps since the last success or change of weight

    def keep(self, rows: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[rows])


@dataclass(frozen=True, kw_only=True)
class CarliniWagnerLinf:
    """C&W in linf: a weighted margin plus all that pixels change beyond a limit, and the limit shrinks.

    Pixels move in [0, 1] itself: through the authors' change of variable those of 0 and 1 take a thousand steps.

    A minimum-norm attack in linf: it returns the closest misclassified image that it found, and the judge projects
    that into the budget. What others call C&W in linf with a fixed budget is ``pgd:loss=margin``.

    Attributes:
        steps: Adam steps per image in all.
        patience: Steps without success after which the weight of the margin doubles; an image whose weight would
            exceed 20 is done.
        first_weight: The first one; the authors' 1e-5 costs more steps and finds the same.
        learning_rate: Of Adam, as a share of the limit.
        confidence: Margin, in logits, by which the wrong class has to win.
        stop_in_budget: Leave an image once an adversarial inside an linf budget is found; off, it goes on to the
            closest.

    Reference:
        Carlini and Wagner, "Towards Evaluating the Robustness of Neural Networks", S&P 2017, section VI.C.
        https://arxiv.org/abs/1608.04644
    """

    name: ClassVar[str] = "cw-linf"
    kind: ClassVar[Kind] = "gradient"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    packs: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True

    steps: int = 1000
    patience: int = 50
    first_weight: float = 0.01
    learning_rate: float = 0.03
    confidence: float = 0.0
    stop_in_budget: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.patience) < 1:
            raise OptionError(f"cw-linf needs steps and patience of at least 1, got {self.steps} and {self.patience}")
        if min(self.first_weight, self.learning_rate) <= 0 or self.confidence < 0:
            raise OptionError(
                f"cw-linf needs a positive first_weight and learning_rate and a confidence of at least 0, got "
                f"{self.first_weight}, {self.learning_rate} and {self.confidence}"
            )

    @property
    def passes(self) -> int:
        """Forward and backward passes, and one for the clean image."""
        return 1 + 2 * self.steps

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return the closest misclassified image found for each, or the original."""
        del generator  # nothing here is random
        closest = Closest(x, "linf")
        wrong = misclassified(model, x, y)
        closest.offer(torch.arange(len(x), device=x.device), x, wrong)
        eps = threat.eps if self.stop_in_budget and threat.norm == "linf" else 0.0
        rows = torch.nonzero(~wrong)[:, 0]
        state = _State(rows, *(torch.full_like(closest.distance[rows], v) for v in (1.0, self.first_weight, 0.0)))
        descent = Descent(x[rows], self.learning_rate)
        for _ in range(self.steps):
            if not len(state.rows):
                break
            adv = descent.point
            seen = shortfall(model, adv, y[state.rows], self.confidence)
            delta = adv - x[state.rows]
            largest = closest.offer(state.rows, adv, seen.reached)
            beyond = delta.sign() * (delta.abs() > wide(state.limit))
            gradient = wide(state.weight) * seen.gradient + beyond
            renewed = self._advance(state, seen.reached & (largest <= state.limit), largest)
            descent.step(gradient, wide(state.limit))
            descent.point = descent.point.clamp(0, 1)
            descent.restart(renewed)
            left = ~closest.within(eps)[state.rows] & (state.weight <= LARGEST_WEIGHT)
            state.keep(left)
            descent.keep(left)
        return closest.images

    def _advance(self, state: _State, success: Tensor, largest: Tensor) -> Tensor:
        """Shrink limits after a success, double weights after too long without; say where either happened."""
        state.since += 1
        state.limit = torch.where(success, SHRINK * torch.minimum(state.limit, largest), state.limit)
        stuck = ~success & (state.since >= self.patience)
        state.weight = torch.where(stuck, 2 * state.weight, state.weight)
        state.since = torch.where(success | stuck, 0.0, state.since)
        return success | stuck

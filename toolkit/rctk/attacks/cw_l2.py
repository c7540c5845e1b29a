"""Carlini and Wagner's minimum-norm attack in l2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.closest import Closest, wide
from rctk.attacks.slopes import misclassified
from rctk.attacks.tanh_space import Descent, from_tanh, shortfall, tanh_gradient, to_tanh
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError

STALLED = 1e-4
"""A weight is given up where a tenth of the steps gains less than this share of the objective."""


@dataclass(frozen=True, kw_only=True)
class CarliniWagnerL2:
    """C&W in l2: minimises distance plus a weighted margin, with a binary search over the weight of each image.

    A minimum-norm attack in l2: it returns the closest misclassified image that it found, and the judge projects that
    into the budget, so judge it with ``--norm l2``. Pixels of 0 or 1 move too, because they are pulled a millionth
    inside before the change of variable.

    Attributes:
        steps: Adam steps per weight; a weight is given up early where the objective stalls.
        searches: Weights to try per image: ten times larger until one succeeds, then halving the interval.
        first_weight: The first one.
        learning_rate: Of Adam.
        confidence: Margin, in logits, by which the wrong class has to win.
        stop_in_budget: Leave an image once an adversarial inside an l2 budget is found; off, it goes on to the closest.

    Reference:
        Carlini and Wagner, "Towards Evaluating the Robustness of Neural Networks", S&P 2017, section VI.A.
        https://arxiv.org/abs/1608.04644
    """

    name: ClassVar[str] = "cw-l2"
    kind: ClassVar[Kind] = "gradient"
    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf", "l1")
    packs: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True

    steps: int = 1000
    searches: int = 9
    first_weight: float = 1e-3
    learning_rate: float = 0.01
    confidence: float = 0.0
    stop_in_budget: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.searches) < 1:
            raise OptionError(f"cw-l2 needs steps and searches of at least 1, got {self.steps} and {self.searches}")
        if min(self.first_weight, self.learning_rate) <= 0 or self.confidence < 0:
            raise OptionError(
                f"cw-l2 needs a positive first_weight and learning_rate and a confidence of at least 0, got "
                f"{self.first_weight}, {self.learning_rate} and {self.confidence}"
            )

    @property
    def passes(self) -> int:
        """Forward and backward passes of all searches, and one for the clean image."""
        return 1 + 2 * self.steps * self.searches

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return the closest misclassified image found for each, or the original."""
        del generator  # nothing here is random
        closest, every = Closest(x, "l2"), torch.arange(len(x), device=x.device)
        closest.offer(every, x, misclassified(model, x, y))
        eps = threat.eps if self.stop_in_budget and threat.norm == "l2" else 0.0
        weight, low = torch.full_like(closest.distance, self.first_weight), torch.zeros_like(closest.distance)
        high = torch.full_like(low, torch.inf)
        for _ in range(self.searches):
            rows = every[~closest.within(eps)]
            if not len(rows):
                break
            images = _Images(rows, x[rows], y[rows], weight[rows])
            won = rows[self._descend(model, images, closest, eps)]
            lost = rows[~torch.isin(rows, won)]
            high[won], low[lost] = weight[won], weight[lost]
            weight = torch.where(high.isinf(), weight * 10, (low + high) / 2)
        return closest.images

    def _descend(self, model: nn.Module, images: _Images, closest: Closest, eps: float) -> Tensor:
        """Minimise with one weight per image and say for which of ``images`` that succeeded, ``(n,)``."""
        won, left = torch.zeros_like(images.rows, dtype=torch.bool), torch.arange(len(images.rows))
        left = left.to(won.device)
        descent = Descent(to_tanh(images.x), self.learning_rate)
        checked = torch.full_like(images.weight, torch.inf)
        for number in range(self.steps):
            adv = from_tanh(descent.point)
            seen = shortfall(model, adv, images.y, self.confidence)
            delta = adv - images.x
            closest.offer(images.rows, adv, seen.reached)
            won[left] |= seen.reached
            descent.step(tanh_gradient(descent.point, 2 * delta + wide(images.weight) * seen.gradient))
            stay = ~closest.within(eps)[images.rows]
            if number % max(self.steps // 10, 1) == 0:
                objective = delta.square().flatten(1).sum(dim=1) + images.weight * seen.value
                stay &= objective <= (1 - STALLED) * checked
                checked = objective
            if not bool(stay.all()):
                images, left, checked = images.keep(stay), left[stay], checked[stay]
                descent.keep(stay)
            if not len(left):
                break
        return won


class _Images(NamedTuple):
    """The images of a search that are left, each with its weight."""

    rows: Tensor
    x: Tensor
    y: Tensor
    weight: Tensor

    def keep(self, left: Tensor) -> _Images:
        return _Images(*(tensor[left] for tensor in self))

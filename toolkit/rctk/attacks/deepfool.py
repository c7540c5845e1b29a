"""DeepFool: straight to the nearest linearised boundary, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.closest import Closest, dual_sizes, wide
from rctk.attacks.slopes import Slopes, differences, misclassified, slopes
from rctk.attacks.targets import wrong_classes
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError

_AHEAD = 1e-4
"""Added to every gap between logits, so that a step does not end on the boundary."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class DeepFool:
    """DeepFool, linf and l2: a minimum-norm attack, and a cheap estimate of the distance to the boundary.

    The overshoot multiplies the whole way from the original, not each step; otherwise the steps converge to the
    boundary and stop in front of it. An image whose gradients are all zero stays as it is.

    Attributes:
        steps: Most iterations; an image leaves as soon as it is broken.
        classes: Classes to consider, the true one included, likeliest on the clean image first.
        overshoot: How much farther than the boundary the candidate goes, as a share of the way.

    Reference:
        Moosavi-Dezfooli et al., "DeepFool: a simple and accurate method to fool deep neural networks", CVPR 2016,
        algorithm 2. https://arxiv.org/abs/1511.04599
    """

    name: ClassVar[str] = "deepfool"
    kind: ClassVar[Kind] = "gradient"
    packs: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True

    steps: int = 50
    classes: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        if self.steps < 1 or self.classes < 2 or not 0 <= self.overshoot < float("inf"):
            raise OptionError(
                f"deepfool needs steps of at least 1, classes of at least 2 and an overshoot of at least 0, got "
                f"{self.steps}, {self.classes} and {self.overshoot}"
            )

    @property
    def passes(self) -> int:
        """One pass to rank the classes; per step one forward pass and one backward pass per class; one at the end."""
        return 3 + self.steps * self.classes

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return the first misclassified point on the way of each image, or else the original."""
        del generator  # nothing here is random
        closest = Closest(x, threat.norm)
        near = wrong_classes(model, x, y)[:, : self.classes - 1]
        rows, way, adv = torch.arange(len(x), device=x.device), torch.zeros_like(x), x
        for _ in range(self.steps):
            if not len(rows):
                return closest.images
            seen = slopes(model, adv, differences, y[rows], near[rows])
            broken = seen.logits.argmax(dim=1) != y[rows]
            closest.offer(rows, adv, broken)
            left = ~broken & (dual_sizes(seen.gradients.flatten(1), "l1") > _TINY)
            rows, way = rows[left], way[left] + _step(seen, threat.norm)[left]
            adv = (x[rows] + (1 + self.overshoot) * way).clamp(0, 1)
        if len(rows):
            closest.offer(rows, adv, misclassified(model, adv, y[rows]))
        return closest.images


def _step(seen: Slopes, norm: Norm) -> Tensor:
    """Return the shortest step to the nearest linearised boundary."""
    gap = seen.values.abs() + _AHEAD
    steepness = dual_sizes(seen.gradients.flatten(0, 1), norm).view_as(gap).clamp(min=_TINY)
    nearest = (gap / steepness).argmin(dim=1)
    every = torch.arange(len(gap), device=gap.device)
    w, length = seen.gradients[every, nearest], (gap / steepness)[every, nearest]
    unit = w.sign() if norm == "linf" else w / wide(steepness[every, nearest])
    return wide(length) * unit

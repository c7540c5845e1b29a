"""Jacobian-based saliency map attack: few values, changed a lot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.best import Best
from rctk.attacks.gradients import classify
from rctk.attacks.losses import margin
from rctk.attacks.slopes import slopes
from rctk.attacks.targets import ranked
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError

SHORTLIST = 64
"""Values of an image that are tried with all others at a time."""


@dataclass(frozen=True, kw_only=True)
class JSMA:
    """Changes two values per step, the pair that raises the target's logit and lowers the sum of the others most.

    It bounds how many values change, not how far: every budget but a wide one takes away what it does, as the judge
    projects its images. Study it with ``--norm l1`` or with a large ``eps``.

    Attributes:
        steps: Most pairs to change; the authors allow 14.5 % of the values of an image.
        theta: Change of a value per step; negative ones darken.
        targets: Wrong classes to try, likeliest first; later ones see only images that are not broken yet.

    Reference:
        Papernot et al., "The Limitations of Deep Learning in Adversarial Settings", EuroS&P 2016, algorithm 3, on
        logits. https://arxiv.org/abs/1511.07528
    """

    name: ClassVar[str] = "jsma"
    kind: ClassVar[Kind] = "gradient"
    norms: ClassVar[tuple[Norm, ...]] = ("l1", "linf", "l2")
    packs: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True

    steps: int = 100
    theta: float = 1.0
    targets: int = 1

    def __post_init__(self) -> None:
        if min(self.steps, self.targets) < 1 or not 0 < abs(self.theta) <= 1:
            raise OptionError(
                f"jsma needs steps and targets of at least 1 and a theta in [-1, 1] but 0, got {self.steps}, "
                f"{self.targets} and {self.theta}"
            )

    @property
    def passes(self) -> int:
        """Per step one forward and two backward passes; one to rank the classes, one more per target."""
        return 1 + self.targets * (3 * self.steps + 1)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return for every image the first broken iterate, or else the one with the smallest margin."""
        del threat, generator  # no budget, and nothing here is random
        best, every = Best(x), torch.arange(len(x), device=x.device)
        logits = classify(model, x)
        best.offer(every, x, -margin(logits, y), logits.argmax(dim=1) != y)
        targets = ranked(logits, y)[:, : self.targets]
        for number in range(targets.shape[1]):
            rows = best.open(stop=True)
            self._change(model, best, (rows, x[rows], y[rows], targets[rows, number]))
        return best.images

    def _change(self, model: nn.Module, best: Best, images: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        """Change pairs of the images ``(rows, x, y, target)`` until each is broken or has no pair left."""
        rows, adv, y, target = images
        for _ in range(self.steps):
            if not len(rows):
                return
            seen = slopes(model, adv, _target_and_others, target)
            broken = seen.logits.argmax(dim=1) != y
            best.offer(rows, adv, -margin(seen.logits, y), broken)
            towards = 1.0 if self.theta > 0 else -1.0
            movable = (adv < 1 if self.theta > 0 else adv > 0).flatten(1)
            rise, fall = (towards * seen.gradients.flatten(2)).unbind(dim=1)
            pair = best_pair(torch.where(movable, rise, -torch.inf), torch.where(movable, -fall, 0.0))
            left = ~broken & pair.found
            rows, y, target = rows[left], y[left], target[left]
            values = adv[left].flatten(1)
            moved = (values.gather(1, pair.places[left]) + self.theta).clamp(0, 1)
            adv = values.scatter(1, pair.places[left], moved).view(-1, *adv.shape[1:])
        if len(rows):
            logits = classify(model, adv)
            best.offer(rows, adv, -margin(logits, y), logits.argmax(dim=1) != y)


def _target_and_others(logits: Tensor, target: Tensor) -> Tensor:
    chosen = logits.gather(1, target[:, None])
    return torch.cat([chosen, logits.sum(dim=1, keepdim=True) - chosen], dim=1)


class Pair(NamedTuple):
    """Two values per image.

    Attributes:
        places: ``(N, 2)``.
        found: ``(N,)``; whether both sums are positive for any pair at all.
    """

    places: Tensor
    found: Tensor


def best_pair(a: Tensor, b: Tensor) -> Pair:
    """Find the two places with the largest ``(a_p + a_q) (b_p + b_q)`` of two positive sums.

    Takes the places with the highest bounds on what a pair with them can reach, tries them with all places, and goes
    on among the others until no bound there is above the best pair. So it is exact, and memory stays far below that of
    all pairs.

    Args:
        a: ``(N, d)``; minus infinity where a place may not be taken.
        b: ``(N, d)``.

    Example:
        >>> best_pair(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[-1.0, 2.0, 3.0]])).places
        tensor([[0, 2]])
    """
    pairs = [_best_of_one(one, other) for one, other in zip(a, b, strict=True)]
    places = torch.tensor([pair or (0, 0) for pair in pairs], dtype=torch.int64, device=a.device)
    found = torch.tensor([pair is not None for pair in pairs], device=a.device)
    return Pair(places.view(-1, 2), found)


def _best_of_one(a: Tensor, b: Tensor) -> tuple[int, int] | None:
    """Return the best pair of one image, or ``None``."""
    best, pair = 0.0, None
    rest = torch.nonzero(a.isfinite())[:, 0]
    while len(rest):
        c, d = a[rest], b[rest]
        bound = (c + c.amax()).clamp(min=0) * (d + d.amax()).clamp(min=0)
        open_ = bound > best
        rest, bound = rest[open_], bound[open_]
        if not len(rest):
            break
        short = bound.topk(min(SHORTLIST, len(rest))).indices
        first, second = a[rest[short]][:, None] + a[rest], b[rest[short]][:, None] + b[rest]
        product = torch.where((first > 0) & (second > 0), first * second, 0.0)
        product[torch.arange(len(short), device=a.device), short] = 0  # a place does not pair with itself
        top = int(product.argmax())
        if float(product.flatten()[top]) > best:
            best = float(product.flatten()[top])
            row, column = divmod(top, len(rest))
            pair = int(rest[short[row]]), int(rest[column])
        others = torch.ones(len(rest), dtype=torch.bool, device=a.device)
        others[short] = False
        rest = rest[others]
    return pair

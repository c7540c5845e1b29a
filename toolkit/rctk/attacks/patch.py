"""Adversarial patch: a square that works wherever and however it is stuck on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball, draw_base
from rctk.attacks.best import Best
from rctk.attacks.closest import wide
from rctk.attacks.draws import Words, image_seeds, uniform
from rctk.attacks.gradients import classify, look
from rctk.attacks.losses import margin, negative_margin
from rctk.attacks.slopes import misclassified
from rctk.attacks.tanh_space import Descent
from rctk.threat import Norm, ThreatModel
from rctk_kernels.errors import OptionError

_LAST = 2**40
"""Stream of the placements that are tried in the end, far from those of the training."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Trains one square per image on its mean margin over random places and rotations, then sticks it on.

    A patch changes few pixels without limit, so its budget is ``--norm linf --eps 1``; in a smaller one the pixels
    under the patch stay within it. With one try the outcome is that of a random placement, which the patch was not
    trained on; with more, the attacker chooses the best of so many.

    Attributes:
        area: Share of the image that the patch covers.
        steps: Adam steps.
        draws: Placements per step.
        rotation: Largest angle in degrees, both ways.
        tries: Placements tried in the end.
        learning_rate: Of Adam, in units of pixels.
        shared: Train one patch for all images that the attack is given at once; the result then depends on them.

    Reference:
        Brown et al., "Adversarial Patch", NIPS workshop 2017, eq. 1. https://arxiv.org/abs/1712.09665
    """

    name: ClassVar[str] = "patch"
    kind: ClassVar[Kind] = "gradient"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")

    area: float = 0.1
    steps: int = 100
    draws: int = 4
    rotation: float = 22.5
    tries: int = 1
    learning_rate: float = 0.05
    shared: bool = False

    def __post_init__(self) -> None:
        if min(self.steps, self.draws, self.tries) < 1 or self.learning_rate <= 0:
            raise OptionError(
                f"patch needs steps, draws and tries of at least 1 and a positive learning_rate, got {self.steps}, "
                f"{self.draws}, {self.tries} and {self.learning_rate}"
            )
        if not 0 < self.area <= 1 or not 0 <= self.rotation <= 180:
            raise OptionError(
                f"patch:area is a share of the image in (0, 1] and rotation 0 to 180 degrees, got {self.area} and "
                f"{self.rotation}"
            )

    @property
    def passes(self) -> int:
        """Forward and backward passes of the training, and a forward pass for each try and the clean image."""
        return 1 + 2 * self.steps * self.draws + self.tries

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return each image with its patch on; one that is misclassified as it is stays."""
        seeds = image_seeds(x.detach().cpu().numpy(), draw_base(generator))
        best, ball = Best(x), Ball.around(x, threat)
        side = self.side(x.shape[2], x.shape[3])
        every = torch.arange(len(x), device=x.device)
        best.offer(every, x, torch.full(y.shape, -torch.inf, device=x.device), misclassified(model, x, y))
        rows = best.open(stop=True)
        if not len(rows):
            return best.images
        patch = self._trained(model, ball.keep(rows), y[rows], seeds[rows.cpu().numpy()], side)
        for number in range(self.tries):
            left = best.open(stop=True)
            if not len(left):
                break
            place = self._place(seeds[left.cpu().numpy()], x, side, _LAST + number)
            chosen = patch if self.shared else patch[torch.isin(rows, left)]
            images = paste(ball.keep(left), chosen, place)
            logits = classify(model, images)
            best.offer(left, images, -margin(logits, y[left]), logits.argmax(dim=1) != y[left])
        return best.images

    def side(self, height: int, width: int) -> int:
        """Return the side of the patch in pixels.

        Example:
            >>> Patch(area=0.1).side(32, 32)
            10
        """
        return min(max(round(math.sqrt(self.area * height * width)), 1), height, width)

    def _trained(self, model: nn.Module, ball: Ball, y: Tensor, seeds: Words, side: int) -> Tensor:
        """Return patches ``(n, C, side, side)``, or one of them where it is shared."""
        count = 1 if self.shared else len(y)
        start = uniform(seeds[:count], (ball.x.shape[1], side, side), stream=0)
        descent = Descent(torch.from_numpy(start).to(ball.x.device), self.learning_rate)
        for step in range(self.steps):
            slope = torch.zeros_like(descent.point)
            for draw in range(self.draws):
                place = self._place(seeds, ball.x, side, 1 + step * self.draws + draw)
                slope += self._slope(model, ball, y, descent.point, place)
            descent.step(-slope / self.draws)
            descent.point = descent.point.clamp(0, 1)
        return descent.point

    def _slope(self, model: nn.Module, ball: Ball, y: Tensor, patch: Tensor, place: Place) -> Tensor:
        """Return the gradient of minus the margin by the patches."""
        with torch.enable_grad():
            leaf = patch.detach().requires_grad_()
            images = paste(ball, leaf, place)
        seen = look(model, images.detach(), y, y, negative_margin, until_broken=False)
        (slope,) = torch.autograd.grad(images, leaf, seen.gradient)
        return slope

    def _place(self, seeds: Words, x: Tensor, side: int, stream: int) -> Place:
        """Draw one placement per image, each from its own stream."""
        top, left, turn = torch.from_numpy(uniform(seeds, (3,), stream=stream)).to(x.device).unbind(dim=1)
        return Place(
            top=(top * (x.shape[2] - side + 1)).floor(),
            left=(left * (x.shape[3] - side + 1)).floor(),
            angle=torch.deg2rad(self.rotation * (2 * turn - 1)),
        )


class Place(NamedTuple):
    """Where patches go, ``(n,)`` each.

    Attributes:
        top: Row of the upper edge before the rotation.
        left: Column of the left edge.
        angle: Rotation about the middle of the patch, clockwise, in radians.
    """

    top: Tensor
    left: Tensor
    angle: Tensor


def paste(ball: Ball, patch: Tensor, place: Place) -> Tensor:
    """Return the images of ``ball`` with patches on, inside the budget; differentiable by ``patch``.

    Args:
        ball: Images ``(n, C, H, W)`` and their budget.
        patch: ``(n, C, s, s)``, or one for all.
        place: Where; without rotation the pixels of the patch are copied, otherwise interpolated.
    """
    count, _, height, width = ball.x.shape
    half = patch.shape[-1] / 2
    down = torch.arange(height, device=patch.device)[:, None] + 0.5 - half - wide(place.top)[:, 0]
    across = torch.arange(width, device=patch.device) + 0.5 - half - wide(place.left)[:, 0]
    cos, sin = wide(place.angle.cos())[:, 0], wide(place.angle.sin())[:, 0]
    u, v = (cos * across + sin * down) / half, (cos * down - sin * across) / half
    inside = (torch.maximum(u.abs(), v.abs()) <= 1)[:, None]
    spread = patch.expand(count, -1, -1, -1)
    seen = F.grid_sample(spread, torch.stack([u, v], dim=-1), padding_mode="border", align_corners=False)
    return ball.project(torch.where(inside, seen, ball.x))

"""Projected gradient descent with restarts, leaving an image as soon as it is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball, draw_base
from rctk.attacks.best import Best
from rctk.attacks.eot import look_often
from rctk.attacks.gradients import Look
from rctk.attacks.losses import Loss, LossName
from rctk.attacks.objectives import OBJECTIVES, require_loss
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient descent from a uniform random start, linf and l2.

    Keeps per image the iterate with the smallest margin. In linf, an image whose iterate returns exactly to an earlier
    one would repeat itself for ever and ends its restart there (Doldo et al., "Stop Walking in Circles!", 2025).

    Attributes:
        steps: Gradient steps per restart.
        restarts: Random starts; later ones see only images that are not broken yet.
        step_size: Length of one step as a share of ``eps``; ``none`` for 2.5 / ``steps``.
        loss: ``ce``, ``margin``, ``dlr``, ``dlr-t`` (towards the likeliest wrong class), or ``njs`` and ``hns``, the
            cross-entropy of logits scaled per image, see :mod:`rctk.attacks.logit_scale`.
        eot: Answers to average per step, for a model that answers at random.
        stop_at_success: Leave an image once it is broken. Switch off to go on to the smallest margin, which a candidate
            needs when it has to break another model too.
        stop_cycles: Leave an image whose iterate repeats; a model that answers at random (``eot``) has no such end.

    Reference:
        Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
        https://arxiv.org/abs/1706.06083
    """

    name: ClassVar[str] = "pgd"
    kind: ClassVar[Kind] = "gradient"
    packs: ClassVar[bool] = True

    steps: int = 40
    restarts: int = 1
    step_size: float | None = None
    loss: LossName = "ce"
    eot: int = 1
    stop_at_success: bool = True
    stop_cycles: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts, self.eot) < 1:
            raise OptionError(
                f"{self.name} needs steps, restarts and eot of at least 1, got {self.steps}, {self.restarts} and "
                f"{self.eot}"
            )
        if self.step_size is not None and not 0 < self.step_size < float("inf"):
            raise OptionError(f"{self.name}:step_size is a positive share of eps, got {self.step_size}")
        require_loss(self.loss, self.name)

    @property
    def passes(self) -> int:
        """Forward and backward passes of all restarts."""
        return OBJECTIVES[self.loss].passes + self.restarts * self.eot * (2 * self.steps + 1)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return for every image the iterate with the smallest margin."""
        best, base = Best(x), draw_base(generator)
        aside = OBJECTIVES[self.loss].aside(model, x, y)
        for restart in range(self.restarts):
            rows = best.open(stop=self.stop_at_success)
            if not len(rows):
                break
            ball = Ball.around(x[rows], threat)
            self.descend(model, ball, Asked(rows, y[rows], aside[rows]), ball.start(base, stream=restart), best)
        return best.images

    def descend(self, model: nn.Module, ball: Ball, asked: Asked, adv: Tensor, best: Best) -> None:
        """Run all steps from ``adv`` ``(n, C, H, W)`` for the images ``asked`` and offer every iterate to ``best``."""
        loss = OBJECTIVES[self.loss].loss
        step = ball.threat.eps * (2.5 / self.steps if self.step_size is None else self.step_size)
        seen_before = _Visited(adv) if self.stop_cycles and self.eot == 1 and ball.threat.norm == "linf" else None
        for _ in range(self.steps):
            seen = self._look(model, adv, asked, loss)
            best.offer(asked.rows, adv, -seen.margin, seen.broken)
            left = ~seen.broken if self.stop_at_success else torch.ones_like(seen.broken)
            if seen_before is not None:
                left &= ~seen_before.again(adv)
            gradient = seen.gradient
            if not bool(left.all()):
                asked, adv, gradient, ball = asked.keep(left), adv[left], gradient[left], ball.keep(left)
                if seen_before is not None:
                    seen_before.keep(left)
            if not len(adv):
                return
            adv = ball.project(adv + step * ball.direction(gradient))
        seen = self._look(model, adv, asked, loss, gradient=False)
        best.offer(asked.rows, adv, -seen.margin, seen.broken)

    def _look(self, model: nn.Module, adv: Tensor, asked: Asked, loss: Loss, *, gradient: bool = True) -> Look:
        return look_often(
            model,
            adv,
            asked.y,
            asked.aside,
            loss,
            draws=self.eot,
            gradient=gradient,
            until_broken=self.stop_at_success,
        )


class Asked(NamedTuple):
    """The images of a run.

    Attributes:
        rows: Their positions in the batch ``(n,)``.
        y: True labels ``(n,)``.
        aside: What the loss needs beside the label ``(n,)``.
    """

    rows: Tensor
    y: Tensor
    aside: Tensor

    def keep(self, left: Tensor) -> Asked:
        """Return the images that are left, ``(n,)`` bool."""
        return Asked(*(tensor[left] for tensor in self))


class _Visited:
    """Remembers 64-bit fingerprints of earlier iterates, ``(N, steps)``."""

    def __init__(self, adv: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)  # its own: the weights of the fingerprint, not randomness
        count = adv[0].numel()
        self._weights = torch.randint(-(2**62), 2**62, (count,), generator=generator).to(adv.device) | 1
        self._prints = torch.empty(len(adv), 0, dtype=torch.int64, device=adv.device)

    def again(self, adv: Tensor) -> Tensor:
        """Say which iterates occurred before, ``(N,)``, and remember them all."""
        bits = adv.detach().contiguous().view(torch.int32).flatten(1).to(torch.int64)
        prints = (bits * self._weights).sum(dim=1, keepdim=True)  # wraps around on overflow
        again = (self._prints == prints).any(dim=1)
        self._prints = torch.cat([self._prints, prints], dim=1)
        return again

    def keep(self, rows: Tensor) -> None:
        self._prints = self._prints[rows]

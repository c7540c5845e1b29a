"""Auto-PGD in l1: sparse steps whose density adapts, in three balls of shrinking radius."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from rctk.attacks.ball import Ball
from rctk.attacks.best import Best
from rctk.attacks.closest import sizes, wide
from rctk.attacks.eot import look_often
from rctk.attacks.gradients import Look
from rctk.attacks.losses import Loss
from rctk.threat import ThreatModel

PHASES = ((3, 0.3), (2, 0.3), (1, 0.4))
"""Radius in units of ``eps``, and share of the steps."""
DENSER = 1.5
"""A step changes one ``DENSER``-th of as many values as the best iterate changes."""
SLOWEST = 10
"""The step size falls from the radius to one ``SLOWEST``-th of it."""


@dataclass
class _State:
    """The images of one phase; every field has one entry per image that is left."""

    rows: Tensor
    y: Tensor
    target: Tensor
    adv: Tensor
    gradient: Tensor
    top: Tensor  # the iterate with the highest loss, with its gradient and loss
    top_gradient: Tensor
    top_loss: Tensor
    step: Tensor
    density: Tensor  # share of the values that a step changes
    changed: Tensor  # values that the best iterate changed at the last checkpoint

    def keep(self, rows: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[rows])


@dataclass(frozen=True, kw_only=True)
class SparsePgd:
    """One run of l1-APGD from one random start.

    The first phases run in balls of three and two times the budget, and each hands its best point, projected, to the
    next; only the last phase, in the budget itself, proposes candidates.

    Attributes:
        steps: Gradient steps of all phases together.
        loss: What is maximised.
        stop: Whether a broken image leaves the last phase at once.
        draws: Answers of the model to average, for one that answers at random.

    Reference:
        Croce and Hein, "Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers", ICML 2021,
        algorithm 1. https://arxiv.org/abs/2103.01208
    """

    steps: int
    loss: Loss
    stop: bool
    draws: int = 1

    def start(self, ball: Ball, base: int, *, stream: int) -> Tensor:
        """Draw Gaussian noise projected onto the widest ball, ``(n, C, H, W)``."""
        return _scaled(ball, PHASES[0][0]).start(base, stream=stream)

    def run(self, model: nn.Module, ball: Ball, labels: Tensor, target: Tensor, start: Tensor, best: Best) -> None:
        """Attack the images that ``best`` has open and offer it every iterate of the last phase.

        The arguments are those of :meth:`rctk.attacks.apgd.AutoPgd.run`.
        """
        rows = best.open(stop=self.stop)
        for (radius, _), steps in zip(PHASES, phase_steps(self.steps), strict=True):
            wider = _scaled(ball, radius)
            start = wider.project(start)
            seen = self._look(model, start, labels, target)
            state = _begin(rows, labels, target, start, seen, wider)
            if radius > 1:
                self._climb(model, wider, state, steps, None)
            else:
                wider = self._leave(state, seen, best, wider)
                self._climb(model, wider, state, steps, best)
            start = state.top

    def _climb(self, model: nn.Module, ball: Ball, state: _State, steps: int, best: Best | None) -> None:
        every = max(int(0.04 * steps), 1)
        for number in range(1, steps + 1):
            if not len(state.rows):
                return
            state.adv = _moved(state, ball)
            seen = self._look(model, state.adv, state.y, state.target, gradient=number < steps)
            _record(state, seen)
            if best is not None:
                ball = self._leave(state, seen, best, ball)
            if number % every == 0 and len(state.rows):
                _checkpoint(state, ball)

    def _look(self, model: nn.Module, adv: Tensor, y: Tensor, target: Tensor, *, gradient: bool = True) -> Look:
        return look_often(model, adv, y, target, self.loss, draws=self.draws, gradient=gradient, until_broken=False)

    def _leave(self, state: _State, seen: Look, best: Best, ball: Ball) -> Ball:
        best.offer(state.rows, state.adv, seen.loss, seen.broken)
        if not self.stop or not bool(seen.broken.any()):
            return ball
        state.keep(~seen.broken)
        return ball.keep(~seen.broken)


def phase_steps(steps: int) -> list[int]:
    """Split the steps of a run among its phases.

    Example:
        >>> phase_steps(100)
        [30, 30, 40]
    """
    first = [math.ceil(round(share * steps, 6)) for _, share in PHASES[:-1]]
    return [*first, max(steps - sum(first), 1)]


def _scaled(ball: Ball, factor: float) -> Ball:
    return ball._replace(threat=ThreatModel(norm="l1", eps=factor * ball.threat.eps))


def _begin(rows: Tensor, y: Tensor, target: Tensor, start: Tensor, seen: Look, ball: Ball) -> _State:
    changed = _changed(start, ball)
    return _State(
        rows=rows,
        y=y,
        target=target,
        adv=start,
        gradient=seen.gradient,
        top=start.clone(),
        top_gradient=seen.gradient.clone(),
        top_loss=seen.loss.clone(),
        step=torch.full((len(rows),), ball.threat.eps, device=rows.device),
        density=changed / start[0].numel() / DENSER,
        changed=changed,
    )


def _changed(images: Tensor, ball: Ball) -> Tensor:
    """Return how many values differ from the original, ``(n,)``."""
    return (images != ball.x).flatten(1).sum(dim=1).float()


def _moved(state: _State, ball: Ball) -> Tensor:
    """Step along the signs of the largest gradients, of l1 length ``step`` in all, and project."""
    size = state.gradient.abs().flatten(1)
    values = size.shape[1]
    place = ((1 - state.density) * values).clamp(0, values - 1).long()
    least = size.sort(dim=1).values.gather(1, place[:, None])
    signs = torch.where(state.gradient.abs() >= wide(least), state.gradient.sign(), 0.0)
    return ball.project(state.adv + signs * wide(state.step / sizes(signs, "l1").clamp(min=1)))


def _record(state: _State, seen: Look) -> None:
    state.gradient = seen.gradient
    higher = seen.loss > state.top_loss
    state.top[higher] = state.adv[higher]
    state.top_gradient[higher] = seen.gradient[higher]
    state.top_loss[higher] = seen.loss[higher]


def _checkpoint(state: _State, ball: Ball) -> None:
    """Adapt density and step: back to the best point and the longest step where that point became sparser."""
    changed, longest = _changed(state.top, ball), ball.threat.eps
    sparser = changed < 0.95 * state.changed
    state.density = changed / state.top[0].numel() / DENSER
    state.step = torch.where(sparser, longest, (state.step / DENSER).clamp(min=longest / SLOWEST))
    state.changed = changed
    state.adv = torch.where(wide(sparser), state.top, state.adv)
    state.gradient = torch.where(wide(sparser), state.top_gradient, state.gradient)

"""Auto-PGD: the loop that ``apgd-ce`` and ``apgd-t`` share."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from rctk.attacks.ball import Ball
from rctk.attacks.best import Best
from rctk.attacks.eot import look_often
from rctk.attacks.gradients import Look
from rctk.attacks.losses import Loss

MOMENTUM = 0.75
RHO = 0.75


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which the step size may halve, section 3.1 of the paper.

    Example:
        >>> checkpoints(100)
        [22, 41, 57, 70, 80, 87, 93, 99]
    """
    result, before, share = [], 0.0, 0.22
    while share <= 1:
        result.append(math.ceil(round(share * steps, 6)))  # 0.57 * 100 is a little more than 57 in floating point
        before, share = share, round(share + max(share - before - 0.03, 0.06), 6)
    return result


@dataclass
class _State:
    """The images of one run; every field has one entry per image that is left."""

    rows: Tensor
    y: Tensor
    target: Tensor
    adv: Tensor
    before: Tensor  # the iterate one step earlier
    gradient: Tensor
    loss: Tensor
    top: Tensor  # the iterate with the highest loss, with its gradient and loss
    top_gradient: Tensor
    top_loss: Tensor
    step: Tensor
    rises: Tensor  # steps since the last checkpoint in which the loss rose
    halved: Tensor  # whether the last checkpoint halved the step
    checked: Tensor  # highest loss at the last checkpoint

    def keep(self, rows: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[rows])


@dataclass(frozen=True, kw_only=True)
class AutoPgd:
    """One run of Auto-PGD from one random start.

    The step size starts at ``2 eps`` and halves at a checkpoint, returning to the best point, where the loss rose in
    not more than ``rho`` of the steps since the last one, or where the step was not halved there and the best
    loss has not improved since.

    Attributes:
        steps: Gradient steps.
        loss: What is maximised.
        stop: Whether a broken image leaves at once.
        draws: Answers of the model to average, for one that answers at random.

    Reference:
        Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
        Attacks", ICML 2020, algorithm 1. https://arxiv.org/abs/2003.01690
    """

    steps: int
    loss: Loss
    stop: bool
    draws: int = 1

    def start(self, ball: Ball, base: int, *, stream: int) -> Tensor:
        """Draw a start on the surface of the ball per image, ``(n, C, H, W)``."""
        return ball.start(base, stream=stream, surface=True)

    def run(self, model: nn.Module, ball: Ball, labels: Tensor, target: Tensor, start: Tensor, best: Best) -> None:
        """Attack the images that ``best`` has open, and offer it every iterate.

        Args:
            model: Images to logits.
            ball: Budget of those images ``(n, C, H, W)``.
            labels: ``(n,)``.
            target: ``(n,)``.
            start: ``(n, C, H, W)``.
            best: Receives the candidates.
        """
        seen = look_often(model, start, labels, target, self.loss, draws=self.draws, until_broken=self.stop)
        state = _begin(best.open(stop=self.stop), labels, target, start, seen, ball)
        ball = self._leave(state, seen, best, ball)
        last, marks = 0, set(checkpoints(self.steps))
        for number in range(1, self.steps + 1):
            if not len(state.rows):
                return
            _move(state, ball, momentum=MOMENTUM if number > 1 else 1.0)
            seen = look_often(
                model,
                state.adv,
                state.y,
                state.target,
                self.loss,
                draws=self.draws,
                gradient=number < self.steps,
                until_broken=self.stop,
            )
            _record(state, seen)
            ball = self._leave(state, seen, best, ball)
            if number in marks:
                _checkpoint(state, number - last)
                last = number

    def _leave(self, state: _State, seen: Look, best: Best, ball: Ball) -> Ball:
        best.offer(state.rows, state.adv, seen.loss, seen.broken)
        if not self.stop or not bool(seen.broken.any()):
            return ball
        state.keep(~seen.broken)
        return ball.keep(~seen.broken)


def _begin(rows: Tensor, y: Tensor, target: Tensor, start: Tensor, seen: Look, ball: Ball) -> _State:
    count, device = len(rows), rows.device
    return _State(
        rows=rows,
        y=y,
        target=target,
        adv=start,
        before=start,
        gradient=seen.gradient,
        loss=seen.loss,
        top=start.clone(),
        top_gradient=seen.gradient.clone(),
        top_loss=seen.loss.clone(),
        step=torch.full((count, 1, 1, 1), 2 * ball.threat.eps, device=device),
        rises=torch.zeros(count, device=device),
        halved=torch.ones(count, dtype=torch.bool, device=device),
        checked=seen.loss.clone(),
    )


def _move(state: _State, ball: Ball, *, momentum: float) -> None:
    pushed = ball.project(state.adv + state.step * ball.direction(state.gradient))
    mixed = state.adv + momentum * (pushed - state.adv) + (1 - momentum) * (state.adv - state.before)
    state.before, state.adv = state.adv, ball.project(mixed)


def _record(state: _State, seen: Look) -> None:
    state.rises += seen.loss > state.loss
    state.loss, state.gradient = seen.loss, seen.gradient
    higher = seen.loss > state.top_loss
    state.top[higher] = state.adv[higher]
    state.top_gradient[higher] = seen.gradient[higher]
    state.top_loss[higher] = seen.loss[higher]


def _checkpoint(state: _State, steps: int) -> None:
    """Halve the step and go back to the best point where the last ``steps`` steps were not worth it."""
    stalled = state.rises <= RHO * steps
    stuck = ~state.halved & (state.top_loss <= state.checked)
    halve = stalled | stuck
    state.step[halve] /= 2
    state.adv = torch.where(halve[:, None, None, None], state.top, state.adv)
    state.gradient = torch.where(halve[:, None, None, None], state.top_gradient, state.gradient)
    state.halved, state.checked = halve, state.top_loss.clone()
    state.rises = torch.zeros_like(state.rises)

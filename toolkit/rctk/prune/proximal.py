"""Scales are trained by accelerated proximal gradient, beside an optimizer that trains the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from rctk.prune.scales import Scale


def accelerated_step(
    values: Tensor, velocity: Tensor, gradient: Tensor, *, lr: float, gamma: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """Take one step on a loss plus ``gamma`` times the sum of absolute values, which stay at 0 or above.

    ``z = shrink(values - lr gradient)``, where ``shrink`` takes ``lr gamma`` off every magnitude; then
    ``velocity <- z - values + momentum velocity`` and ``values <- max(0, z + momentum velocity)``.

    Args:
        values: ``(S,)``.
        velocity: ``(S,)``.
        gradient: ``(S,)``; of the loss without the penalty, at ``values``.
        lr: Length of the step.
        gamma: Weight of the penalty.
        momentum: Share of the velocity that goes on.

    Returns:
        New values and velocity.

    Example:
        >>> values, velocity = accelerated_step(
        ...     torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([2.0]), lr=0.1, gamma=1.0, momentum=0.5
        ... )
        >>> f"{values.item():.2f} {velocity.item():.2f}"  # z is 1 - 0.2 - 0.1
        '0.55 -0.30'

    Reference:
        Huang and Wang, "Data-Driven Sparse Structure Selection for Deep Neural Networks", ECCV 2018, eqs. 10 to
        12; that values stay at 0 or above is the release's. https://arxiv.org/abs/1707.01213
    """
    moved = values - lr * gradient
    shrunk = moved.sign() * (moved.abs() - lr * gamma).clamp_min(0)
    velocity = shrunk - values + momentum * velocity
    return (shrunk + momentum * velocity).clamp_min(0), velocity


@contextmanager
def accelerated(scales: Sequence[Scale], *, gamma: float, momentum: float) -> Iterator[None]:
    """Within the block, let an optimizer that holds ``scales`` leave them to :func:`accelerated_step`.

    It happens in front of the optimizer's own step: there the gradients are those of all devices together, without the
    factor of mixed precision, and the learning rate is that of the step.
    """

    def step(optimizer: Optimizer, *_: Any) -> None:
        rates = {id(each): float(group["lr"]) for group in optimizer.param_groups for each in group["params"]}
        for scale in scales:
            if id(scale.values) in rates and scale.values.grad is not None:
                _advance(scale, scale.values.grad, lr=rates[id(scale.values)], gamma=gamma, momentum=momentum)
                scale.values.grad = None  # so the optimizer passes over it

    handle = register_optimizer_step_pre_hook(step)
    try:
        yield
    finally:
        handle.remove()


def _advance(scale: Scale, gradient: Tensor, *, lr: float, gamma: float, momentum: float) -> None:
    with torch.no_grad():
        values, velocity = accelerated_step(
            scale.values, scale.velocity, gradient, lr=lr, gamma=gamma, momentum=momentum
        )
        scale.values.copy_(values)
        scale.velocity.copy_(velocity)

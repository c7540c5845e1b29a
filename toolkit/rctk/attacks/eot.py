"""Gradients of a model that answers at random, averaged over several answers."""

from __future__ import annotations

from torch import Tensor, nn

from rctk.attacks.gradients import Look, look
from rctk.attacks.losses import Loss


def look_often(  # noqa: PLR0913 - as look, with the number of draws
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    loss: Loss,
    *,
    draws: int,
    gradient: bool = True,
    until_broken: bool = True,
) -> Look:
    """Look ``draws`` times (see :func:`rctk.attacks.gradients.look`) and average loss, margin and gradient.

    An image counts as broken where more than half of the draws misclassify it. With one draw this is ``look`` itself.

    Reference:
        Athalye et al., "Synthesizing Robust Adversarial Examples", ICML 2018, eq. 1. https://arxiv.org/abs/1707.07397
    """
    if draws == 1:
        return look(model, x, y, target, loss, gradient=gradient, until_broken=until_broken)
    total = look(model, x, y, target, loss, gradient=gradient, until_broken=False)
    wrong = total.broken.int()
    for _ in range(draws - 1):
        seen = look(model, x, y, target, loss, gradient=gradient, until_broken=False)
        wrong += seen.broken
        total = Look(total.loss + seen.loss, total.broken, total.margin + seen.margin, total.gradient + seen.gradient)
    return Look(total.loss / draws, 2 * wrong > draws, total.margin / draws, total.gradient / draws)

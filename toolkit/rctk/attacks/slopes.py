"""Gradients of several functions of the logits at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rctk.attacks.gradients import input_gradient


class Slopes(NamedTuple):
    """What a model says about candidates.

    Attributes:
        values: ``(N, k)``.
        gradients: ``(N, k, C, H, W)`` of each value by the image.
        logits: ``(N, K)``.
    """

    values: Tensor
    gradients: Tensor
    logits: Tensor


def slopes(model: nn.Module, x: Tensor, heads: Callable[[Tensor], Tensor]) -> Slopes:
    """Classify ``x`` and differentiate each of ``heads`` by it: one forward pass and ``k`` backward passes.

    Args:
        model: Images to logits.
        x: Candidates ``(N, C, H, W)``.
        heads: Logits ``(N, K)`` to the values ``(N, k)``.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = model(leaf)
        values = heads(logits)
        totals = values.sum(dim=0)
        count = len(totals)
        gradients = [input_gradient(totals[k], leaf, again=k + 1 < count) for k in range(count)]
    return Slopes(values.detach(), torch.stack(gradients, dim=1), logits.detach())


def differences(y: Tensor, classes: Tensor) -> Callable[[Tensor], Tensor]:
    """Return heads ``z_k - z_y`` for the classes ``(N, k)``: the first that rises above zero changes the class."""
    return lambda logits: logits.gather(1, classes) - logits.gather(1, y[:, None])


def misclassified(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Say which images the model gets wrong, ``(N,)``: one forward pass."""
    with torch.no_grad():
        wrong: Tensor = model(x).argmax(dim=1) != y
    return wrong

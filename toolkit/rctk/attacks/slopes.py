"""Gradients of several functions of the logits at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rctk.attacks.gradients import at_once, classify, input_gradient


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


def slopes(model: nn.Module, x: Tensor, heads: Callable[..., Tensor], *aside: Tensor) -> Slopes:
    """Classify ``x`` and differentiate each of ``heads`` by it: one forward pass and ``k`` backward passes.

    Args:
        model: Images to logits.
        x: Candidates ``(N, C, H, W)``.
        heads: ``(logits (N, K), *aside)`` to values ``(N, k)``.
        aside: Tensors with one row per image.
    """
    pieces = -(-len(x) // at_once(model, len(x)))
    if pieces > 1:
        cut = zip(*(tensor.tensor_split(pieces) for tensor in (x, *aside)), strict=True)
        parts = [slopes(model, part[0], heads, *part[1:]) for part in cut]
        return Slopes(*(torch.cat(field) for field in zip(*parts, strict=True)))
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = model(leaf)
        values = heads(logits, *aside)
        totals = values.sum(dim=0)
        gradients = [input_gradient(total, leaf, again=True) for total in totals]
    return Slopes(values.detach(), torch.stack(gradients, dim=1), logits.detach())


def differences(logits: Tensor, y: Tensor, classes: Tensor) -> Tensor:
    """Return ``z_k - z_y`` for the classes ``(N, k)``: the first that rises above zero changes the class."""
    return logits.gather(1, classes) - logits.gather(1, y[:, None])


def misclassified(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Say which images the model gets wrong, ``(N,)``: one forward pass."""
    return classify(model, x).argmax(dim=1) != y

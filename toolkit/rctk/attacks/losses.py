"""Losses that attacks maximise, one value per image; a fall of the margin is a rise of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(logits (N, K), y (N,), target (N,)) -> (N,)``; ``target`` is what :mod:`rctk.attacks.objectives` says."""
LossName: TypeAlias = Literal["ce", "margin", "dlr", "dlr-t", "njs", "hns"]

_TINY = 1e-12


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the true logit minus the largest other one, ``(N,)``.

    Example:
        >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
        tensor([1.])
    """
    others = logits.scatter(1, y[:, None], -torch.inf)
    return _pick(logits, y) - others.amax(dim=1)


def cross_entropy(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy; its gradient vanishes in float32 where logits are large."""
    del target
    return F.cross_entropy(logits, y, reduction="none")


def negative_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return minus the margin; unlike the cross-entropy it never saturates."""
    del target
    return -margin(logits, y)


def dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the difference of logits ratio; with fewer than three classes, minus the margin.

    Reference:
        Croce and Hein, "Reliable Evaluation of Adversarial Robustness", ICML 2020, eq. 6.
        https://arxiv.org/abs/2003.01690
    """
    if logits.shape[1] < 3:
        return negative_margin(logits, y, target)
    top = logits.topk(3, dim=1).values
    return -margin(logits, y) / (top[:, 0] - top[:, 2] + _TINY)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the targeted ratio, eq. 7 of the same paper; with fewer than four classes, the targeted margin."""
    difference = _pick(logits, y) - _pick(logits, target)
    if logits.shape[1] < 4:
        return -difference
    top = logits.topk(4, dim=1).values
    return -difference / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _TINY)


def _pick(logits: Tensor, index: Tensor) -> Tensor:
    return logits.gather(1, index[:, None])[:, 0]

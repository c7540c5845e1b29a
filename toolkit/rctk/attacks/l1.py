"""The l1 projection of :mod:`rctk.projection_l1` in torch, with a radius per image."""

from __future__ import annotations

import torch
from torch import Tensor


def shrink_l1(delta: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """Return the differences nearest to ``delta`` with an l1 length of at most ``radius`` and sizes up to ``room``.

    Args:
        delta: ``(N, ...)``.
        room: ``(N, ...)``; how far each value may go in the direction of its sign.
        radius: ``(N,)``.

    Example:
        >>> shrink_l1(torch.tensor([[0.9, -0.5, 0.1]]), torch.tensor([[0.4, 1.0, 1.0]]), torch.tensor([0.7]))
        tensor([[ 0.4000, -0.3000,  0.0000]])
    """
    size, limit = delta.abs().flatten(1), room.flatten(1)
    cut = torch.minimum(size, limit)
    long = torch.nonzero(cut.sum(dim=1) > radius)[:, 0]
    if len(long):
        t = _threshold(size[long].double(), limit[long].double(), radius[long].double())
        cut[long] = torch.minimum((size[long] - t[:, None]).clamp(min=0), limit[long]).to(cut.dtype)
    return delta.sign() * cut.view_as(delta)


def _threshold(size: Tensor, limit: Tensor, radius: Tensor) -> Tensor:
    """Return per row the ``t`` at which the sum of ``clip(size - t, 0, limit)`` falls to ``radius``."""
    corners, order = torch.cat([(size - limit).clamp(min=0), size], dim=1).sort(dim=1)
    shrinking = torch.where(order < size.shape[1], 1, -1).cumsum(dim=1)  # how many values shrink after each corner
    falls = shrinking[:, :-1] * corners.diff(dim=1)
    sums = torch.minimum(size, limit).sum(dim=1, keepdim=True) - falls.cumsum(dim=1)
    last = (sums > radius[:, None]).sum(dim=1, keepdim=True).clamp(max=sums.shape[1] - 1)
    above = (sums.gather(1, last) + falls.gather(1, last))[:, 0]
    return corners.gather(1, last)[:, 0] + (above - radius) / shrinking.gather(1, last)[:, 0].clamp(min=1)

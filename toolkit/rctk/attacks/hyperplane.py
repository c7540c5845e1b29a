"""The shortest way from an image to a hyperplane that stays inside [0, 1]."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rctk.threat import Norm


def step_to_hyperplane(points: Tensor, w: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """Return the shortest step onto ``{z: w z = b}`` inside the box, ``(N, d)``; where none reaches it, the longest.

    A coordinate that moves helps by ``|w|`` per unit and can move up to the end of the box. In l1 the coordinates that
    help most go first, each to its end. In linf all move alike and in l2 in proportion to ``w``, until they arrive.

    Args:
        points: ``(N, d)`` in [0, 1].
        w: ``(N, d)``.
        b: ``(N,)``.
        norm: What is short.

    Reference:
        Croce and Hein, "Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary Attack", ICML 2020,
        section 3.1. https://arxiv.org/abs/1907.02044

    Example:
        >>> step_to_hyperplane(torch.tensor([[0.1, 0.5]]), torch.tensor([[1.0, 1.0]]), torch.tensor([0.2]), "linf")
        tensor([[-0.1000, -0.3000]])
    """
    excess = (w * points).sum(dim=1) - b
    down = w.sign() * torch.where(excess >= 0, 1.0, -1.0)[:, None]  # sign of a coordinate whose fall helps
    room = torch.where(down > 0, points, 1 - points)
    way = _Way(room=room, help=w.abs(), missing=excess.abs().double())
    size = _greedy(way) if norm == "l1" else _together(way, w.abs() if norm == "l2" else (w != 0).to(w.dtype))
    return -down * size


class _Way(NamedTuple):
    """Room of each coordinate, help per unit of its movement, both ``(N, d)``, and the help needed ``(N,)``."""

    room: Tensor
    help: Tensor
    missing: Tensor


def _together(way: _Way, speed: Tensor) -> Tensor:
    """Move every coordinate by ``time * speed``, at most to its end, until the help suffices.

    The help is a concave piecewise linear function of time. Newton's steps from 0 never go too far on one, and end
    exactly where no further coordinate comes to its end: after a handful of steps, and without sorting coordinates.
    """
    ends = torch.where(speed > 0, way.room / speed.clamp(min=1e-30), torch.inf)
    rate, full = way.help * speed, way.help * way.room
    time = torch.zeros_like(way.missing)
    while True:
        moving = ends > time[:, None]
        rest = way.missing - full.masked_fill(moving, 0).sum(dim=1, dtype=torch.float64)
        pace = rate.masked_fill(~moving, 0).sum(dim=1, dtype=torch.float64)
        later = torch.where(pace > 0, rest / pace.clamp(min=1e-300), torch.where(rest > 0, torch.inf, 0))
        if not bool((later > time * (1 + 1e-9)).any()):  # false for NaN too
            break
        time = torch.maximum(time, later)
    reached = torch.minimum(time.to(speed.dtype)[:, None] * speed.clamp(min=1e-30), way.room)
    return torch.where(speed > 0, reached, 0.0)


def _greedy(way: _Way) -> Tensor:
    """Move the most helpful coordinates to their ends, and the last one as far as needed."""
    order = way.help.argsort(dim=1, descending=True)
    help_, room = way.help.gather(1, order), way.room.gather(1, order)
    full = (help_ * room).double()
    missing = way.missing[:, None] - (full.cumsum(dim=1) - full)
    part = (missing.clamp(min=0) / help_.double().clamp(min=1e-30)).to(room.dtype)
    moved = torch.where(help_ > 0, torch.minimum(part, room), 0.0)
    return torch.zeros_like(moved).scatter(1, order, moved)

"""Robust accuracy over the size of the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.evaluation.judge import Flags
from rctk.statistics import Interval, wilson
from rctk_kernels.errors import OptionError

BUDGETS = tuple(level / 255 for level in (1, 2, 4, 8, 12, 16))
"""Linf budgets of a usual curve; the clean accuracy stands at 0."""


class Point(NamedTuple):
    """One budget: robust accuracy with Wilson's 95 % interval, all shares."""

    eps: float
    accuracy: float
    interval: Interval


class SecurityCurve(NamedTuple):
    """Robust accuracy over the budget; an upper bound everywhere.

    Attributes:
        points: From 0, the clean accuracy, to the largest budget.
        rise: Largest rise of the attack's own accuracy from one budget to the next; above half a point, the attack is
            too weak at the larger one. In ``points`` it is mended: what breaks an image in a small ball breaks it in a
            large one.
    """

    points: tuple[Point, ...]
    rise: float


def security_curve(clean: Flags, robust: Mapping[float, Flags]) -> SecurityCurve:
    """Return the curve of attacks on the same images at several budgets.

    Args:
        clean: ``(N,)``; right on the clean image.
        robust: Budget to ``(N,)``; right on the clean image and under attack.

    Example:
        >>> yes, half = np.array([True, True]), np.array([True, False])
        >>> curve = security_curve(yes, {0.1: half, 0.2: yes})
        >>> [point.accuracy for point in curve.points], curve.rise
        ([1.0, 0.5, 0.5], 0.5)
    """
    budgets = sorted(robust)
    if not budgets or budgets[0] <= 0 or any(robust[eps].shape != clean.shape for eps in budgets):
        raise OptionError(f"a curve needs results on the same {len(clean)} images at budgets above 0, got {budgets}")
    alive, points = clean.copy(), [_point(0.0, clean)]
    own = [float(clean.mean())]
    for eps in budgets:
        alive &= robust[eps]
        own.append(float((clean & robust[eps]).mean()))
        points.append(_point(eps, alive))
    return SecurityCurve(tuple(points), rise=max(0.0, float(np.diff(own).max())))


def curve_of_norms(clean: Flags, broken: Flags, norm: npt.ArrayLike, budgets: Sequence[float]) -> SecurityCurve:
    """Return the curve that one minimum-norm attack gives at once: an image falls where its norm is within the budget.

    Args:
        clean: ``(N,)``; right on the clean image.
        broken: ``(N,)``; the attack found a success.
        norm: ``(N,)``; its size.
        budgets: Where the curve is read.
    """
    sizes = np.where(broken, np.asarray(norm, dtype=np.float64), np.inf)
    return security_curve(clean, {float(eps): clean & (sizes > eps * (1 + 1e-6)) for eps in budgets})


def _point(eps: float, alive: Flags) -> Point:
    count = int(alive.sum())
    return Point(eps, count / len(alive), wilson(count, len(alive)))

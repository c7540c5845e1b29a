"""Slopes of a score estimated from queries on both sides of a point."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from rctk.attacks.case import Case, FloatCHW
from rctk.attacks.lockstep import CHUNK, Reply
from rctk_export.input_spec import FloatNCHW

Draw = Callable[[int], FloatNCHW]
"""Number of directions to directions ``(n, C, H, W)``."""


def slope(case: Case, at: FloatCHW, step: float, pairs: int, draw: Draw) -> Generator[FloatNCHW, Reply, FloatCHW]:
    """Return the mean of ``(f(at + step u) - f(at - step u)) u / (2 step)`` over directions ``u``, ``(C, H, W)``.

    Asks about at most ``pairs`` pairs and only as many as the budget of queries allows; zero where it allows none.
    """
    total = np.zeros(at.shape, dtype=np.float64)
    done = 0
    while (count := min(pairs - done, case.left // 2, CHUNK // 2)) > 0:
        u = draw(count)
        heard = yield case.legal(np.concatenate([at + np.float32(step) * u, at - np.float32(step) * u]))
        difference = heard[:count].astype(np.float64) - heard[count:]
        total += np.tensordot(difference, u, axes=1)
        done += count
    result: FloatCHW = (total / (2 * step * max(done, 1))).astype(np.float32)
    return result


def steepest(slope_: FloatCHW, norm: str) -> FloatCHW:
    """Return the direction of length 1 in ``norm`` along which a function with this slope falls fastest."""
    if norm == "linf":
        return -np.sign(slope_)
    length = float(np.sqrt((slope_.astype(np.float64) ** 2).sum()))
    return -slope_ / np.float32(max(length, 1e-30))


def per_pixel(case: Case) -> float:
    """Return the change of every pixel that spends the whole budget: ``eps``, in l2 divided by the root of the size."""
    return case.threat.eps / (1 if case.threat.norm == "linf" else float(np.sqrt(case.x.size)))

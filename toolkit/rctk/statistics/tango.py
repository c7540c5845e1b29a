"""Score bounds for the difference of two shares that were measured on the same samples."""

from __future__ import annotations

import math

from rctk.statistics.interval import Interval, normal_quantile
from rctk_kernels.errors import OptionError

HALVINGS = 60
"""Bisection steps; the interval of length at most 2 ends below 2e-18, under the spacing of doubles near a bound."""


def tango_lower(b: int, c: int, n: int, alpha: float = 0.05) -> float:
    """Return the one-sided lower ``1 - alpha`` bound of the paired difference ``(c - b) / n``.

    The bound is the smallest difference that the score test does not reject. Unlike Wald's it has a positive
    width at ``b = c = 0`` and keeps its error rate at small counts.

    Args:
        b: Samples that only the float model gets right.
        c: Samples that only the engine gets right.
        n: All samples, at least ``b + c`` and at least 1.
        alpha: Chance that the true difference lies below the bound.

    Reference:
        Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
        design", Statistics in Medicine 17, 1998, section 3.
        https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C891::AID-SIM780%3E3.0.CO;2-B

    Example:
        >>> round(100 * tango_lower(0, 0, 500), 2), round(100 * tango_lower(0, 0, 200), 2)
        (-0.54, -1.33)
    """
    check_counts(b, c, n)
    z = normal_quantile(1 - alpha)
    low, high = -1.0, (c - b) / n
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle, b, c, n) > z else (low, middle)
    return low


def tango_upper(b: int, c: int, n: int, alpha: float = 0.05) -> float:
    """Return the one-sided upper ``1 - alpha`` bound; see :func:`tango_lower`, whose mirror image it is."""
    return -tango_lower(c, b, n, alpha)


def tango_interval(b: int, c: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the two-sided interval of the paired difference ``(c - b) / n``.

    Example:
        >>> low, high = tango_interval(14, 1, 32)
        >>> round(low, 3), round(high, 3)
        (-0.587, -0.198)
    """
    alpha = (1 - confidence) / 2
    return Interval(tango_lower(b, c, n, alpha), tango_upper(b, c, n, alpha))


def score(difference: float, b: int, c: int, n: int) -> float:
    """Return how many standard deviations the observed difference lies above ``difference``.

    The variance is that of the most likely table among those whose true difference is ``difference``.
    """
    distance = c - b - n * difference
    lost = most_likely_loss(difference, b, c, n)
    variance = n * (2 * lost + difference - difference * difference)
    if variance <= 0:  # the only table with this difference has no spread
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def most_likely_loss(difference: float, b: int, c: int, n: int) -> float:
    """Return the most likely chance that only float is right, given that the engine's surplus is ``difference``.

    It is the larger root of ``2n q^2 + B q - b d (1 - d) = 0`` with ``B = (2n - c + b) d - b - c``, written in the
    form that does not cancel.
    """
    half = (2 * n - c + b) * difference - b - c
    constant = -b * difference * (1 - difference)
    root = math.sqrt(max(half * half - 8 * n * constant, 0.0))
    if half > 0:
        return -2 * constant / (half + root)
    return (root - half) / (4 * n)


def check_counts(b: int, c: int, n: int) -> None:
    """Refuse counts that no experiment can have."""
    if n < 1:
        raise OptionError(f"a comparison needs at least 1 sample, got {n}")
    if min(b, c) < 0 or b + c > n:
        raise OptionError(f"expected counts b, c >= 0 with b + c <= n, got b={b}, c={c}, n={n}")

"""An interval for one share, and the normal quantile that every bound here uses."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

from rctk_kernels.errors import OptionError


class Interval(NamedTuple):
    """Two ends of a confidence interval; both are shares (or differences of shares)."""

    low: float
    high: float


def normal_quantile(probability: float) -> float:
    """Return the value that a standard normal variable stays below with ``probability``.

    Example:
        >>> round(normal_quantile(0.95), 3)
        1.645
    """
    if not 0 < probability < 1:
        raise OptionError(f"a confidence or error level must lie strictly between 0 and 1, got {probability}")
    return NormalDist().inv_cdf(probability)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval of ``successes`` out of ``n``; 0 to 1 where ``n`` is 0.

    It covers the sampling of images only, not the strength of an attack: its upper end is no proof of robustness.

    Reference:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22, 1927.
        https://doi.org/10.1080/01621459.1927.10502953

    Example:
        >>> low, high = wilson(25, 50)
        >>> round(low, 3), round(high, 3)
        (0.366, 0.634)
    """
    if not 0 <= successes <= n:
        raise OptionError(f"expected 0 <= successes <= n, got {successes} of {n}")
    z = normal_quantile(0.5 + confidence / 2)
    if n == 0:
        return Interval(0.0, 1.0)
    centre = (successes + z * z / 2) / (n + z * z)
    half = z * math.sqrt(successes * (n - successes) / n + z * z / 4) / (n + z * z)
    # at 0 and n the ends are exactly 0 and 1; rounding must not move them
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)

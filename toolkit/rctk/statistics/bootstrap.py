"""Intervals for any statistic of samples, by drawing the samples again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.statistics.interval import normal_quantile
from rctk_kernels.errors import OptionError

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], float]
"""Values ``(n,)`` of n samples to one number, such as ``numpy.mean`` or :func:`median`."""
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A statistic and the two ends of its confidence interval."""

    value: float
    low: float
    high: float


def median(values: Floats) -> float:
    """Return the median; the upper of the two middle values, so that a minimum norm of +inf (not found) can count.

    Example:
        >>> median(np.array([1.0, 2.0, np.inf, np.inf]))
        inf
    """
    return float(np.partition(values, len(values) // 2)[len(values) // 2])


def mean(values: Floats) -> float:
    """Return the mean."""
    return float(values.mean())


def bootstrap(
    values: npt.ArrayLike,
    statistic: Statistic = mean,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    bias_corrected: bool = True,
) -> Estimate:
    """Return ``statistic`` of ``values`` ``(n,)`` with its bootstrap interval over samples.

    Args:
        values: One number per sample; +inf where none was found and ``statistic`` can bear it.
        statistic: What is estimated.
        seed: Of the resampling.
        resamples: Draws of n samples with replacement.
        confidence: Chance that the interval covers the true value.
        bias_corrected: BCa, else plain percentiles. Where leaving one sample out makes the statistic infinite, the
            acceleration has no value and only the bias is corrected.

    Reference:
        Efron, "Better Bootstrap Confidence Intervals", JASA 82, 1987.
        https://doi.org/10.1080/01621459.1987.10478410

    Example:
        >>> estimate = bootstrap([1.0, 2.0, 3.0, 4.0])
        >>> estimate.value, 1 <= estimate.low < 2.5 < estimate.high <= 4
        (2.5, True)
    """
    data = _checked(values)
    return _interval(lambda rows: statistic(data[rows]), len(data), seed, resamples, confidence, bias_corrected)


def bootstrap_difference(  # noqa: PLR0913  # what is compared, then how
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    statistic: Statistic = mean,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    bias_corrected: bool = True,
) -> Estimate:
    """Return ``statistic(second) - statistic(first)``, both ``(n,)`` on the same samples, with its paired interval.

    Every resample takes the same samples from both, so that what they share does not widen the interval. See
    :func:`bootstrap` for the settings; the statistic must be finite on both.

    Example:
        >>> bootstrap_difference([1.0, 5.0, 7.0, 9.0], [2.0, 6.0, 8.0, 10.0])
        Estimate(value=1.0, low=1.0, high=1.0)
    """
    one, two = _checked(first), _checked(second)
    if len(one) != len(two):
        raise OptionError(f"a paired bootstrap needs the same samples twice, got {len(one)} and {len(two)}")

    def difference(rows: npt.NDArray[np.int64]) -> float:
        ends = statistic(two[rows]), statistic(one[rows])
        if not all(map(math.isfinite, ends)):
            raise OptionError(
                f"a difference needs finite statistics, got {ends[0]} and {ends[1]}; compare shares at a fixed budget"
            )
        return ends[0] - ends[1]

    return _interval(difference, len(one), seed, resamples, confidence, bias_corrected)


def _checked(values: npt.ArrayLike) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data) or np.isnan(data).any():
        raise OptionError(
            f"a bootstrap needs one number per sample, (n,) with n >= 1 and no NaN, got {data.shape} with "
            f"{int(np.isnan(data).sum())} NaN"
        )
    return data


def _interval(
    value_of: Callable[[npt.NDArray[np.int64]], float],
    n: int,
    seed: int,
    resamples: int,
    confidence: float,
    bias_corrected: bool,
) -> Estimate:
    if resamples < 1:
        raise OptionError(f"resamples must be at least 1, got {resamples}; 2000 is usual")
    rng = np.random.default_rng(seed)
    value = value_of(np.arange(n))
    drawn = np.sort([value_of(rng.integers(n, size=n)) for _ in range(resamples)])
    tail = (1 - confidence) / 2
    tails = (tail, 1 - tail)
    if bias_corrected and drawn[0] < drawn[-1]:
        tails = _corrected_tails(value_of, n, value, drawn, confidence)
    # a drawn value, not a mean of two: infinite values stay possible
    low, high = (float(np.quantile(drawn, share, method="inverted_cdf")) for share in tails)
    return Estimate(value, low, high)


def _corrected_tails(
    value_of: Callable[[npt.NDArray[np.int64]], float], n: int, value: float, drawn: Floats, confidence: float
) -> tuple[float, float]:
    """Return the two shares of the drawn values where a BCa interval ends; Efron 1987, equation 6.8."""
    below = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    half_draw = 0.5 / len(drawn)
    bias = normal_quantile(float(np.clip(below, half_draw, 1 - half_draw)))
    acceleration = _acceleration(np.array([value_of(np.delete(np.arange(n), i)) for i in range(n)]))
    ends = []
    for share in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + normal_quantile(share)
        ends.append(0.5 * math.erfc(-(bias + z / (1 - acceleration * z)) / math.sqrt(2)))
    return ends[0], ends[1]


def _acceleration(left_out: Floats) -> float:
    if not np.isfinite(left_out).all():
        return 0.0
    distance = left_out.mean() - left_out
    spread = float((distance**2).sum()) ** 1.5
    return float((distance**3).sum()) / (6 * spread) if spread > 0 else 0.0

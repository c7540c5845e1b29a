"""A percentile that holds with 99 % confidence although only so many calls were made."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.99


def overlatencies(calls: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return the largest ``t`` with ``P[Binomial(calls, 1 - percentile) <= t] <= 1 - confidence``; -1 if there is none.

    Were the true percentile above a bound, each call would lie above the bound with more than ``1 - percentile``. To
    see as few as ``t`` such calls would then have a chance of 1 % at most.

    Example:
        >>> [overlatencies(calls, 0.90) for calls in (63, 64, 1000)]
        [0, 1, 78]
    """
    beyond = 1 - percentile
    log_term, log_sum, t = calls * math.log(percentile), -math.inf, -1
    while t < calls:
        log_sum = float(np.logaddexp(log_sum, log_term))
        if log_sum > math.log(1 - confidence):
            return t
        t += 1
        log_term += math.log((calls - t) / (t + 1) * beyond / percentile) if t < calls else -math.inf
    return t


def least_calls(percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return the fewest calls that allow an estimate.

    Example:
        >>> least_calls(0.90), least_calls(0.99)
        (64, 662)
    """
    calls = 1
    while overlatencies(calls, percentile, confidence) < 1:
        calls += 1
    return calls


def early_stopping(
    times: Sequence[float] | npt.NDArray[np.float64], percentile: float, confidence: float = CONFIDENCE
) -> float | None:
    """Return an upper estimate of a percentile: the slowest time after the ``t - 1`` slowest are dropped.

    Args:
        times: ``(N,)``, in any unit.
        percentile: A share, such as 0.9.
        confidence: Of the estimate being no less than the true percentile.

    Returns:
        In the unit of ``times``; ``None`` where there are fewer than :func:`least_calls` of them.

    Reference:
        MLCommons, "MLPerf Inference Rules", section "Early Stopping", with tolerance 0.
        https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc

    Example:
        >>> early_stopping(list(range(64)), 0.9), early_stopping(list(range(63)), 0.9)
        (63.0, None)
    """
    values = np.sort(np.asarray(times, dtype=np.float64))
    dropped = overlatencies(len(values), percentile, confidence) - 1
    return None if dropped < 0 else float(values[len(values) - 1 - dropped])

"""How much faster one engine is than another, with an interval, from turns A B A B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.measure.latency import thinned

RESAMPLES = 1000
LEAST_TURNS = 5
"""Fewer turns give no interval."""
KEPT = 200
"""Of a longer turn so many times are used, evenly thinned."""

Turns = Sequence[npt.NDArray[np.float64]]


class Ratio(NamedTuple):
    """A ratio of medians and its 95 % interval; no interval below five turns."""

    value: float
    low: float | None
    high: float | None


def median_ratio(first: Turns, second: Turns, *, seed: int = 0, confidence: float = 0.95) -> Ratio:
    """Return median(first) / median(second): above 1 where the second is faster.

    The calls of one turn share the state of the machine and are not independent, so whole rounds are resampled: the
    percentile bootstrap over blocks, a round being a turn of each. What slows a round slows both its turns.

    Args:
        first: The times of each turn, in the order of the rounds.
        second: Those of the other engine, as many turns.
        seed: Of the resampling.
        confidence: Chance that the interval covers the ratio of long runs on this machine.

    Reference:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 8.6 (moving blocks).

    Example:
        >>> median_ratio([np.full(3, 4.0)] * 5, [np.full(3, 2.0)] * 5)
        Ratio(value=2.0, low=2.0, high=2.0)
    """
    value = float(np.median(np.concatenate(first)) / np.median(np.concatenate(second)))
    count = len(first)
    if count < LEAST_TURNS:
        return Ratio(value, None, None)
    rng = np.random.default_rng(seed)
    parts = [[thinned(turn, KEPT) for turn in turns] for turns in (first, second)]
    drawn = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        rounds = rng.integers(count, size=count)
        top, bottom = (np.median(np.concatenate([turns[r] for r in rounds])) for turns in parts)
        drawn[i] = top / bottom
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Ratio(value, float(low), float(high))

"""Two classifiers on the same samples: who is right alone, and by how much."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.statistics.tango import tango_interval
from rctk_kernels.errors import OptionError

Flags = npt.NDArray[np.bool_]
"""``(N,)``; whether a sample counts as correct."""


class Paired(NamedTuple):
    """Float and engine on the same ``n`` samples; differences are shares, engine minus float.

    Attributes:
        n: Samples.
        both: Both are right.
        float_only: Only float is right; ``b`` in the formulas.
        engine_only: Only the engine is right; ``c``.
        difference: ``(engine_only - float_only) / n``; negative where the engine is worse.
        low: Lower end of Tango's 95 % score interval of ``difference``.
        high: Upper end.
        p_value: Exact two-sided McNemar test of "no difference".
    """

    n: int
    both: int
    float_only: int
    engine_only: int
    difference: float
    low: float
    high: float
    p_value: float


def paired_difference(float_ok: Flags, engine_ok: Flags) -> Paired:
    """Compare which of the same samples float and engine get right, both ``(N,)`` bool in the same order.

    Example:
        >>> paired = paired_difference(np.array([True, True, False]), np.array([True, False, False]))
        >>> paired.float_only, paired.engine_only, round(paired.difference, 2)
        (1, 0, -0.33)
    """
    for name, flags in (("float", float_ok), ("engine", engine_ok)):
        if flags.dtype != np.bool_ or flags.ndim != 1:
            raise OptionError(f"{name} results must be a bool array (N,), got {flags.dtype} {flags.shape}")
    if float_ok.shape != engine_ok.shape:
        raise OptionError(
            f"float and engine must see the same samples, got {len(float_ok)} and {len(engine_ok)}; run both again"
        )
    n = len(float_ok)
    if n == 0:
        raise OptionError("a comparison needs at least 1 sample, got 0; check --samples and the data set")
    b = int(np.count_nonzero(float_ok & ~engine_ok))
    c = int(np.count_nonzero(engine_ok & ~float_ok))
    low, high = tango_interval(b, c, n)
    return Paired(
        n=n,
        both=int(np.count_nonzero(float_ok & engine_ok)),
        float_only=b,
        engine_only=c,
        difference=(c - b) / n,
        low=low,
        high=high,
        p_value=mcnemar_exact(b, c),
    )


def mcnemar_exact(b: int, c: int) -> float:
    """Return the exact two-sided p-value of "each discordant sample falls on either side with chance 1/2".

    Reference:
        McNemar, "Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages",
        Psychometrika 12, 1947; with the binomial distribution in place of its chi-square limit.
        https://doi.org/10.1007/BF02295996

    Example:
        >>> mcnemar_exact(6, 0), mcnemar_exact(5, 0), mcnemar_exact(0, 0)
        (0.03125, 0.0625, 1.0)
    """
    if min(b, c) < 0:
        raise OptionError(f"counts cannot be negative, got {b} and {c}")
    trials = b + c
    ways = tables = 1  # in whole numbers, so that ties with the 5 % line are exact
    for k in range(1, min(b, c) + 1):
        ways = ways * (trials - k + 1) // k
        tables += ways
    return min(1.0, 2 * tables / (1 << trials))

"""The gate: may we say that the engine loses less than a stated margin?"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from rctk.statistics.interval import normal_quantile
from rctk.statistics.tango import check_counts, tango_lower, tango_upper
from rctk_kernels.errors import OptionError

Outcome = Literal["holds", "does not hold", "not enough samples"]

POWER = 0.8
"""Chance of a decision at the stated sample count, if the observed shares are the true ones."""
MOST_SAMPLES = 1_000_000
"""A larger count is not stated: the observed difference then lies on the margin."""


class Verdict(NamedTuple):
    """Answer of a non-inferiority test; differences are shares, engine minus float.

    Attributes:
        outcome: One of the three words of :data:`Outcome`.
        margin: Largest drop that is allowed.
        lower: One-sided 95 % lower bound of the difference (``1 - alpha``).
        upper: One-sided 95 % upper bound.
        samples_to_decide: Samples, drawn anew, that decide with 80 % chance if the observed shares are the true ones;
            ``None`` where the verdict already stands, or where more than a million would be needed.
        samples_if_equal: Samples that decide with 80 % chance if the engine is truly as good as float and disagrees
            with it as often as observed; ``None`` where the verdict already stands, or for a margin of 0.
    """

    outcome: Outcome
    margin: float
    lower: float
    upper: float
    samples_to_decide: int | None
    samples_if_equal: int | None


def non_inferiority(b: int, c: int, n: int, margin: float, alpha: float = 0.05) -> Verdict:
    """Decide whether the engine's drop stays below ``margin``.

    * ``holds``: the lower bound lies above ``-margin``. An engine that truly loses ``margin`` gets this with chance
      ``alpha``, give or take a point that the discreteness of counts costs.
    * ``does not hold``: the upper bound lies below ``-margin``. An engine that truly loses only ``margin`` gets this
      with the same chance.
    * ``not enough samples``: neither; also when the observed drop is larger than ``margin`` but could be chance. A gate
      treats it as not passed, with an exit code of its own.

    Args:
        b: Samples that only the float model gets right.
        c: Samples that only the engine gets right.
        n: All samples.
        margin: Largest drop, a share in [0, 1), stated before the run.
        alpha: Error rate of each of the two decisions.

    Example:
        >>> non_inferiority(0, 0, 50, 0.02).outcome, non_inferiority(0, 0, 200, 0.02).outcome
        ('not enough samples', 'holds')
    """
    check_margin(margin)
    check_counts(b, c, n)
    lower, upper = tango_lower(b, c, n, alpha), tango_upper(b, c, n, alpha)
    outcome: Outcome = "holds" if lower > -margin else "does not hold" if upper < -margin else "not enough samples"
    if outcome != "not enough samples":
        return Verdict(outcome, margin, lower, upper, None, None)
    observed, equal = (samples_to_decide(b, c, n, margin, d, alpha) for d in ((c - b) / n, 0.0))
    return Verdict(outcome, margin, lower, upper, observed, equal)


def samples_to_decide(b: int, c: int, n: int, margin: float, difference: float, alpha: float = 0.05) -> int | None:
    """Return how many samples decide with 80 % chance if ``difference`` is the true one; more than ``n``.

    Normal approximation ``(z_alpha + z_power)^2 (psi - d^2) / (d + margin)^2`` with difference ``d`` and discordance
    ``psi``. The discordance is the posterior mean under Jeffreys' prior, ``(b + c + 1/2) / (n + 1)``, so that
    ``b = c = 0`` in a small sample is not taken for "never". Where the gate would hold, the count is at least what
    Tango's bound asks for when nothing at all is discordant, ``z^2 (1 - margin) / margin``.

    Example:
        >>> samples_to_decide(0, 0, 50, 0.02, 0.0), samples_to_decide(5, 5, 200, 0.02, 0.0)
        (152, 808)
    """
    z = normal_quantile(1 - alpha)
    distance = difference + margin
    discordance = (b + c + 0.5) / (n + 1)
    spread = (z + normal_quantile(POWER)) ** 2 * max(discordance - difference**2, 0.0)
    if distance == 0 or spread >= distance**2 * MOST_SAMPLES:
        return None
    least = z * z * (1 - margin) / max(margin, 1e-9) if distance > 0 else 0.0
    needed = max(spread / distance**2, least, n)
    return math.floor(needed) + 1 if needed < MOST_SAMPLES else None


def check_margin(margin: float) -> None:
    """Refuse a margin that is no share."""
    if not 0 <= margin < 1:
        hint = f"; write {margin / 100:g} for {margin:g} points" if 1 <= margin < 100 else ""
        raise OptionError(f"max-drop is a share from 0 to below 1, such as 0.02 for 2 points, got {margin}{hint}")

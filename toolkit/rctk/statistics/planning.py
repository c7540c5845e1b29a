"""Before a run: how many images does a margin need? After several: how far apart are repeated runs?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.statistics.interval import normal_quantile
from rctk.statistics.non_inferiority import POWER, check_margin
from rctk_kernels.errors import OptionError

DISCORDANCES = (0.01, 0.02, 0.05, 0.10)
"""Shares of images on which float and engine differ, as int8 engines show them: from clean to robust accuracy."""
ENOUGH_RUNS = 3


def samples_needed(
    margin: float, discordance: float, power: float = POWER, true_difference: float = 0.0, alpha: float = 0.05
) -> int:
    """Return how many images the gate needs to hold with chance ``power``.

    ``(z_alpha + z_power)^2 (psi - d^2) / (margin + d)^2`` with discordance ``psi`` and true difference ``d``, rounded
    up; at least what Tango's bound asks for when nothing at all is discordant.

    Args:
        margin: Largest allowed drop, a share.
        discordance: Share of images that only one of the two gets right.
        power: Chance that the gate holds.
        true_difference: Accuracy of the engine minus that of float, a share; -0.005 is half a point worse.
        alpha: Error rate of the gate.

    Example:
        >>> [samples_needed(0.02, psi) for psi in (0.01, 0.02, 0.05, 0.10)]
        [155, 310, 773, 1546]
    """
    check_margin(margin)
    if not abs(true_difference) <= discordance <= 1:
        raise OptionError(
            f"discordance is a share of at least the true difference, got {discordance} for {true_difference}"
        )
    distance = margin + true_difference
    if distance <= 0:
        raise OptionError(
            f"an engine that truly loses {-true_difference:g} cannot be shown to lose less than {margin:g}; allow a "
            "larger drop or mend the engine"
        )
    z = normal_quantile(1 - alpha)
    spread = (z + normal_quantile(power)) ** 2 * (discordance - true_difference**2)
    least = z * z * (1 - margin) / max(margin, 1e-9)
    return math.ceil(max(spread / distance**2, least))


def plan_text(margin: float, samples: int | None = None, power: float = POWER) -> list[str]:
    """Return lines for a terminal: images needed per discordance, and what ``samples`` images would do.

    Example:
        >>> plan_text(0.02)[3].split()
        ['2', '%', '310', '549']
    """
    worse = -margin / 4
    lines = [
        f"images so that a drop below {100 * margin:g} points is shown with {power:.0%} chance, at one-sided 95 %:",
        f"  {'float and engine differ on':<30}{'if truly equal':>8}{f'if truly {-100 * worse:g} points worse':>26}",
    ]
    for share in DISCORDANCES:
        equal = samples_needed(margin, share, power)
        lost = samples_needed(margin, share, power, worse) if share >= -worse else "-"
        mark = "  enough" if samples is not None and samples >= equal else ""
        lines.append(f"  {f'{100 * share:g} %':<30}{equal:>8}{lost:>26}{mark}")
    if samples is not None:
        lines.append(
            f"{samples} images were planned: rows marked `enough` can be decided if float and engine are equal"
        )
    return lines


def rule_of_three(n: int) -> float:
    """Return the upper 95 % bound of a share when none of ``n`` images showed it: ``3 / n``, at most 1.

    The exact bound is ``1 - 0.05^(1/n)``, which is a little smaller.

    Reference:
        Hanley and Lippman-Hand, "If Nothing Goes Wrong, Is Everything All Right?", JAMA 249, 1983.
        https://doi.org/10.1001/jama.1983.03330370053031

    Example:
        >>> rule_of_three(1000)
        0.003
    """
    if n < 1:
        raise OptionError(f"a bound needs at least 1 sample, got {n}")
    return min(1.0, 3 / n)


class Spread(NamedTuple):
    """How repeated runs of one evaluation differ; all but ``runs`` are shares.

    Attributes:
        runs: Number of runs, each with its own seed.
        worst_case: Share of images that survive every run: the number to report.
        mean: Mean robust accuracy of the runs.
        low: Smallest.
        high: Largest.
        deviation: Standard deviation between runs, with ``runs - 1``; 0 for one run.
        unstable: Share of images whose outcome depends on the run.
    """

    runs: int
    worst_case: float
    mean: float
    low: float
    high: float
    deviation: float
    unstable: float

    def text(self) -> str:
        """Return one sentence for a report."""
        enough = "" if self.runs >= ENOUGH_RUNS else f"; at least {ENOUGH_RUNS} runs are usual"
        return (
            f"{self.runs} runs: worst case per image {self.worst_case:.1%}, single runs {self.low:.1%} to "
            f"{self.high:.1%} (SD {100 * self.deviation:.2f} points), {self.unstable:.1%} of the images depend on the "
            f"run{enough}"
        )


def spread(survived: npt.NDArray[np.bool_]) -> Spread:
    """Summarise runs that differ in their seed only; ``survived`` is ``(R, N)``, one row per run.

    Example:
        >>> spread(np.array([[True, True, False, True], [True, False, False, True]])).worst_case
        0.5
    """
    if survived.ndim != 2 or survived.dtype != np.bool_ or not survived.size:
        raise OptionError(f"expected a bool array (runs, images), got {survived.dtype} {survived.shape}")
    accuracy = survived.mean(axis=1)
    return Spread(
        runs=len(survived),
        worst_case=float(survived.all(axis=0).mean()),
        mean=float(accuracy.mean()),
        low=float(accuracy.min()),
        high=float(accuracy.max()),
        deviation=float(accuracy.std(ddof=1)) if len(survived) > 1 else 0.0,
        unstable=float((survived.any(axis=0) & ~survived.all(axis=0)).mean()),
    )

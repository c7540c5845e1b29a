"""Several gates at once: attacks, budgets or bundles that are decided together need a correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

from rctk.statistics.non_inferiority import Outcome, check_margin
from rctk.statistics.tango import check_counts, score
from rctk_kernels.errors import OptionError


class Counts(NamedTuple):
    """A paired table: ``b`` samples right on float alone, ``c`` on the engine alone, ``n`` in all."""

    b: int
    c: int
    n: int


class CorrectedGate(NamedTuple):
    """One of several gates.

    Attributes:
        outcome: After the correction.
        p_holds: Holm-adjusted p-value of "the engine loses the margin or more"; below alpha, the gate holds.
        p_fails: Holm-adjusted p-value of "the engine loses the margin or less"; below alpha, it does not hold.
    """

    outcome: Outcome
    p_holds: float
    p_fails: float


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that, compared with alpha, all rejections together are wrong with chance alpha at most.

    The chances need not be independent. The smallest is multiplied by the number of tests, the next by one less, and
    so on; none may fall below one that came before it.

    Reference:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979.
        https://www.jstor.org/stable/4615733

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
        [0.03, 0.06, 0.06, 0.02]
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise OptionError(f"a p-value lies in [0, 1], got {p}")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def non_inferiority_p(b: int, c: int, n: int, margin: float) -> float:
    """Return the one-sided p-value of "the engine loses ``margin`` or more", by Tango's score test.

    It is below alpha exactly where the gate of :func:`rctk.statistics.non_inferiority` holds.

    Example:
        >>> round(non_inferiority_p(5, 5, 500, 0.02), 4), non_inferiority_p(0, 0, 50, 0.02) > 0.05
        (0.0061, True)
    """
    check_margin(margin)
    check_counts(b, c, n)
    z = score(-margin, b, c, n)
    return NormalDist().cdf(-z) if math.isfinite(z) else float(z < 0)


def correct_gates(tables: Mapping[str, Counts], margin: float, alpha: float = 0.05) -> dict[str, CorrectedGate]:
    """Decide several gates with one error rate for all of them.

    Needed where *one* gate that holds is enough to ship (any of these bundles), or where each outcome is reported as a
    finding. Where all gates must hold together, no correction is needed; see :class:`rctk.gate.Comparison`.

    Args:
        tables: Name of a gate to its counts.
        margin: Largest allowed drop, a share, the same for all.
        alpha: Chance that any gate is wrongly said to hold, and the chance that any is wrongly said not to.

    Example:
        >>> gates = correct_gates({"cpu": Counts(5, 5, 500), "tensorrt": Counts(9, 9, 500)}, 0.02)
        >>> [(name, gate.outcome) for name, gate in gates.items()]
        [('cpu', 'holds'), ('tensorrt', 'holds')]
    """
    if not 0 < alpha < 1:
        raise OptionError(f"alpha must lie strictly between 0 and 1, got {alpha}")
    holds = holm([non_inferiority_p(*counts, margin) for counts in tables.values()])
    fails = holm([1 - non_inferiority_p(*counts, margin) for counts in tables.values()])
    return {
        name: CorrectedGate(_outcome(p_holds, p_fails, alpha), p_holds, p_fails)
        for name, p_holds, p_fails in zip(tables, holds, fails, strict=True)
    }


def _outcome(p_holds: float, p_fails: float, alpha: float) -> Outcome:
    if p_holds < alpha:
        return "holds"
    return "does not hold" if p_fails < alpha else "not enough samples"

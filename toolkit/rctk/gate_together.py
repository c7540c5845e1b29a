"""Several gates decided at once, with one error rate for all of them: attacks one by one, or bundles to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rctk.evaluation.subjects import eight_bit
from rctk.evaluation.suite import SuiteResult
from rctk.report.words import p_value, percent, points_between
from rctk.statistics import Paired, paired_difference
from rctk.statistics.holm import CorrectedGate, Counts, correct_gates
from rctk.statistics.paired import Flags

ALPHA = 0.05
COLUMNS = ("gate", "float", "engine", "difference [95 %], points", "Holm p: holds / fails", "verdict, corrected")


class Together(NamedTuple):
    """One of several gates: the paired table, and the outcome after Holm's correction for all of them."""

    paired: Paired
    corrected: CorrectedGate


def gate_together(pairs: Mapping[str, tuple[Flags, Flags]], max_drop: float) -> dict[str, Together]:
    """Decide several gates.

    Each outcome is one of several findings, so their chance of any false one is held at 5 %. Where all must hold for
    one decision, no correction is needed: see :class:`rctk.gate.Comparison`.

    Args:
        pairs: Name of a gate to what float and what the engine got right, ``(N,)`` both.
        max_drop: Largest allowed drop, a share, the same for all.

    Example:
        >>> import numpy as np
        >>> yes = np.ones(200, dtype=bool)
        >>> gates = gate_together({"a": (yes, yes), "b": (yes, yes)}, 0.02)
        >>> [gate.corrected.outcome for gate in gates.values()]
        ['holds', 'holds']
    """
    paired = {name: paired_difference(*flags) for name, flags in pairs.items()}
    tables = {name: Counts(found.float_only, found.engine_only, found.n) for name, found in paired.items()}
    corrected = correct_gates(tables, max_drop, ALPHA)
    return {name: Together(found, corrected[name]) for name, found in paired.items()}


def gate_attacks(results: Mapping[str, SuiteResult], max_drop: float, *, rounded: bool) -> dict[str, Together]:
    """Gate every attack by itself; ``results`` has one suite per attack, each on all images."""
    parent, deployed = (eight_bit(name) if rounded else name for name in ("float", "engine"))
    return gate_together({text: (one.robust[parent], one.robust[deployed]) for text, one in results.items()}, max_drop)


def together_rows(gates: Mapping[str, Together]) -> list[tuple[str, ...]]:
    """Return the cells of a table under :data:`COLUMNS`."""
    return [
        (
            name,
            percent((paired.both + paired.float_only) / paired.n),
            percent((paired.both + paired.engine_only) / paired.n),
            points_between(paired.difference, paired.low, paired.high),
            f"{p_value(corrected.p_holds)} / {p_value(corrected.p_fails)}",
            corrected.outcome,
        )
        for name, (paired, corrected) in gates.items()
    ]


def together_values(gates: Mapping[str, Together]) -> dict[str, Any]:
    """Return JSON values for a record."""
    return {
        name: {
            "float_only": paired.float_only,
            "engine_only": paired.engine_only,
            "samples": paired.n,
            "difference": paired.difference,
            "difference_low": paired.low,
            "difference_high": paired.high,
            "outcome": corrected.outcome,
            "holm_p_holds": corrected.p_holds,
            "holm_p_fails": corrected.p_fails,
        }
        for name, (paired, corrected) in gates.items()
    }

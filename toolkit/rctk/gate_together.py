"""Several gates decided at once, with one error rate for all of them: attacks one by one, or bundles to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from rctk.evaluation.subjects import eight_bit
from rctk.evaluation.suite import SuiteResult
from rctk.gate import Comparison
from rctk.report.words import p_value, percent, points_between
from rctk.statistics import Outcome, Paired, paired_difference
from rctk.statistics.holm import CorrectedGate, Counts, correct_gates, holm, non_inferiority_p
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


class BundleGate(NamedTuple):
    """One of several bundles to choose from: both gates of one bundle, corrected for the number of bundles.

    Attributes:
        outcome: After the correction.
        p_holds: Holm-adjusted p-value of "clean or robust accuracy drops by the margin or more": both must hold, so
            the larger of the two counts.
        p_fails: Holm-adjusted p-value of "neither drops by more": twice the smaller of the two.
        disbelief: Why the masking audit overrules a gate that holds, else ``""``.
        uncorrected_p_holds: As if there were no other bundle.
        uncorrected_p_fails: As if there were no other bundle.
    """

    outcome: Outcome
    p_holds: float
    p_fails: float
    disbelief: str
    uncorrected_p_holds: float
    uncorrected_p_fails: float


BUNDLES = ("bundle", "Holm p: holds / fails", "verdict, corrected")


def gate_bundles(comparisons: Mapping[str, Comparison]) -> dict[str, BundleGate]:
    """Decide which of several bundles may ship, with one error rate for all of them."""
    holds, fails = [], []
    for one in comparisons.values():
        tables = [(gate.paired.float_only, gate.paired.engine_only, gate.paired.n) for gate in one.gates]
        chances = [non_inferiority_p(*table, one.max_drop) for table in tables]
        holds.append(max(chances))
        fails.append(min(1.0, 2 * min(1 - chance for chance in chances)))
    found = {}
    rows = zip(comparisons.items(), holm(holds), holm(fails), holds, fails, strict=True)
    for (name, one), p_holds, p_fails, *uncorrected in rows:
        outcome: Outcome = "not enough samples"
        if p_fails < ALPHA or one.disbelief:
            outcome = "does not hold"
        elif p_holds < ALPHA:
            outcome = "holds"
        found[name] = BundleGate(outcome, p_holds, p_fails, one.disbelief, *uncorrected)
    return found


def exit_code_of(gates: Mapping[str, BundleGate]) -> Literal[0, 1, 3]:
    """Return 0 where a bundle holds, else 3 where the data cannot tell about one, else 1."""
    outcomes = {gate.outcome for gate in gates.values()}
    if "holds" in outcomes:
        return 0
    return 3 if "not enough samples" in outcomes else 1


def rows_of(gates: Mapping[str, BundleGate]) -> list[tuple[str, ...]]:
    """Return the cells of a table under :data:`BUNDLES`."""
    return [
        (name, f"{p_value(gate.p_holds)} / {p_value(gate.p_fails)}", f"{gate.outcome} {gate.disbelief}".strip())
        for name, gate in gates.items()
    ]


def together_of_bundles(gates: Mapping[str, BundleGate]) -> dict[str, Any]:
    """Return JSON values for the record of each bundle."""
    return {name: gate._asdict() for name, gate in gates.items()}

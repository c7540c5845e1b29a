"""Robust accuracy of several forms over the budget, or over the number of queries, on the same images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rctk.attacks import ATTACKS
from rctk.data.split import Split
from rctk.evaluation.query_curve import QueryCurve, query_curve
from rctk.evaluation.subjects import Subject
from rctk.evaluation.suite import SuiteResult
from rctk.metrics.critical import CriticalStrength, critical_strength
from rctk.metrics.curve import SecurityCurve, security_curve
from rctk.progress import Progress
from rctk.statistics import wilson
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

RISE = 0.005
"""A larger rise of accuracy from one budget to the next shows an attack that is too weak at the larger one."""
ENOUGH = 9600
"""Images that tell a share of one half to one point, with 95 % confidence."""


def normal_half_width(samples: int) -> float:
    """Return half the length of the 95 % interval of a share of one half.

    Example:
        >>> round(normal_half_width(9600), 3)
        0.01
    """
    return 0.98 / math.sqrt(samples)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Security curves of several forms.

    Attributes:
        curves: Form to curve.
        critical: From which budget on the forms are alike; None without a float model and another form.
        results: What the suites said, by budget.
    """

    curves: Mapping[str, SecurityCurve]
    critical: CriticalStrength | None
    results: Mapping[float, SuiteResult]

    def notes(self) -> list[str]:
        """Word what a reader should know."""
        notes = [note for one in self.results.values() for note in one.notes]
        for name, curve in self.curves.items():
            if curve.rise > RISE:
                notes.append(
                    f"{name}: the attack alone rises by {100 * curve.rise:.1f} points from one budget to the next, so "
                    "it is too weak at the larger one; give it more steps"
                )
        samples = next(iter(self.results.values())).samples
        if self.critical is not None and samples < ENOUGH:
            notes.append(
                f"{samples} images tell a share to about {100 * normal_half_width(samples):.0f} points: a critical "
                "strength, which asks for differences below one point, is a hint and no finding"
            )
        return list(dict.fromkeys(notes))

    def values(self, name: str) -> dict[str, Any]:
        """Return JSON values about one form."""
        curve = self.curves[name]
        points = [
            {"eps": p.eps, "accuracy": p.accuracy, "low": p.interval.low, "high": p.interval.high} for p in curve.points
        ]
        critical = None if self.critical is None else self.critical._asdict()
        return {"over": "eps", "points": points, "rise": curve.rise, "critical_strength": critical}


def security_curves(
    attack_at: Callable[[ThreatModel], SuiteResult], threat: ThreatModel, budgets: Sequence[float], classes: int
) -> Curves:
    """Attack all forms at every budget, the smallest first.

    Args:
        attack_at: Attacks all forms inside a budget; always the same forms and images.
        threat: Norm and grid.
        budgets: Radii above 0.
        classes: ``K``; chance is one over it.
    """
    if not budgets:
        raise OptionError("a curve needs at least one budget, such as --budgets 2/255,4/255,8/255")
    results = {eps: attack_at(replace(threat, eps=eps)) for eps in sorted(set(budgets))}
    first = next(iter(results.values()))
    curves = {
        name: security_curve(first.clean[name], {eps: one.robust[name] for eps, one in results.items()})
        for name in first.clean
    }
    return Curves(curves=curves, critical=_critical(curves, classes), results=results)


def _critical(curves: Mapping[str, SecurityCurve], classes: int) -> CriticalStrength | None:
    others = {name: [p.accuracy for p in curve.points] for name, curve in curves.items() if name != "float"}
    if "float" not in curves or not others:
        return None
    points = curves["float"].points
    return critical_strength([p.eps for p in points], [p.accuracy for p in points], others, classes=classes)


def query_curves(  # noqa: PLR0913 - who, on what, by what, how much, then how
    subjects: Sequence[Subject],
    split: Split,
    attack: str,
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int,
    progress: Progress,
) -> dict[str, QueryCurve]:
    """Return the query curve of every form under one query attack."""
    method = ATTACKS.build(attack)
    with progress.stage(attack, len(subjects)) as step:
        found = {}
        for subject in subjects:
            found[subject.name] = query_curve(subject.predict, split, method, threat, seed=seed, batch_size=batch_size)
            step(1)
    return found


def query_values(curve: QueryCurve) -> dict[str, Any]:
    """Return JSON values about one form; every point with Wilson's 95 % interval."""
    samples = len(curve.broken_at)
    points = []
    for queries, robust in zip(*(column.tolist() for column in curve.points()), strict=True):
        low, high = wilson(int(np.rint(robust * samples)), samples)
        points.append({"queries": queries, "accuracy": robust, "low": low, "high": high})
    return {"over": "queries", "points": points, "median_queries": curve.median_queries(), "budget": curve.budget}

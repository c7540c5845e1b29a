"""Accuracy after one FGSM step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rctk.attacks import ATTACKS
from rctk.data.split import Split
from rctk.evaluation.judge import evaluate
from rctk.evaluation.subjects import Subject
from rctk.metrics.guo import r_inf
from rctk.statistics import wilson
from rctk.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class RInf:
    """Accuracy after one FGSM step in linf of the budget's size; see :func:`rctk.metrics.guo.r_inf`."""

    name: ClassVar[str] = "r-inf"

    def __call__(
        self, subject: Subject, split: Split, threat: ThreatModel, *, seed: int, batch_size: int
    ) -> dict[str, Any]:
        """Return the share and its Wilson interval."""
        budget = ThreatModel(norm="linf", eps=min(threat.eps, 1.0), grid=threat.grid)
        fgsm = ATTACKS.build("fgsm")
        found = evaluate(subject.predict, split, fgsm, budget, seed=seed, batch_size=batch_size, model=subject.model)
        low, high = wilson(int(found.robust.sum()), found.samples)
        return {"value": r_inf(found), "low": low, "high": high, "eps": budget.eps, "samples": found.samples}

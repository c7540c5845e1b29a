"""Accuracy after one FGSM step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rctk.attacks import ATTACKS
from rctk.data.split import Split
from rctk.evaluation.judge import evaluate
from rctk.evaluation.subjects import Subject
from rctk.metrics.guo import r_inf
from rctk.metrics.measured.metric import need_model
from rctk.statistics import wilson
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class RInf:
    """Accuracy after one FGSM step in linf; see :func:`rctk.metrics.guo.r_inf`.

    Attributes:
        eps: Size of the step, such as 8/255; 0 for that of the run's budget, which must then be in linf.
    """

    name: ClassVar[str] = "r-inf"

    eps: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= 1:
            raise OptionError(f"r-inf:eps is a budget in linf from 0 to 1, got {self.eps}")

    def check(self, subject: Subject, threat: ThreatModel) -> None:
        """Refuse a form without gradients, and a budget in another norm without a size for this metric."""
        need_model(self.name, subject)
        if not self.eps and threat.norm != "linf":
            raise OptionError(
                f"r-inf is measured in linf, the budget is in {threat.norm}; say --metric r-inf:eps=8/255"
            )

    def __call__(
        self, subject: Subject, split: Split, threat: ThreatModel, *, seed: int, batch_size: int
    ) -> dict[str, Any]:
        """Return the share and its Wilson interval."""
        self.check(subject, threat)
        budget = ThreatModel(norm="linf", eps=self.eps or threat.eps, grid=threat.grid)
        fgsm = ATTACKS.build("fgsm")
        found = evaluate(subject.predict, split, fgsm, budget, seed=seed, batch_size=batch_size, model=subject.model)
        low, high = wilson(int(found.robust.sum()), found.samples)
        return {"value": r_inf(found), "low": low, "high": high, "eps": budget.eps, "samples": found.samples}

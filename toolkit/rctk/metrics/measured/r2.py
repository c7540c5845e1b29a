"""Mean l2 distance to DeepFool's images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rctk.attacks import ATTACKS
from rctk.data.split import Split
from rctk.evaluation.minimum_norm import minimum_norm
from rctk.evaluation.subjects import Subject
from rctk.metrics.guo import r_2
from rctk.metrics.measured.metric import need_model
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class R2OfDeepFool:
    """Mean l2 distance to DeepFool's images; see :func:`rctk.metrics.guo.r_2`.

    Attributes:
        steps: Most iterations of DeepFool.
    """

    name: ClassVar[str] = "r2"

    steps: int = 50

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"r2:steps must be at least 1, got {self.steps}")

    def check(self, subject: Subject, threat: ThreatModel) -> None:
        """Refuse a form without gradients."""
        del threat
        need_model(self.name, subject)

    def __call__(
        self, subject: Subject, split: Split, threat: ThreatModel, *, seed: int, batch_size: int
    ) -> dict[str, Any]:
        """Return the mean and how many images DeepFool did not break; the budget plays no part."""
        self.check(subject, threat)
        attack = ATTACKS.build(f"deepfool:steps={self.steps}")
        found = minimum_norm(
            subject.predict, split, attack, "l2", seed=seed, batch_size=batch_size, model=subject.model
        )
        length = np.where(np.isfinite(found.distance), found.distance, 0.0)
        value, failures = r_2(found.clean, found.found, length)
        return {"value": value, "failures": failures, "samples": len(split)}

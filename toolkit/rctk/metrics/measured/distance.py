"""Median distance to the nearest misclassified image that an attack finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rctk.attacks import ATTACKS
from rctk.attacks.attack import require_norm
from rctk.data.split import Split
from rctk.evaluation.minimum_norm import minimum_norm, require_minimum_norm
from rctk.evaluation.subjects import Subject
from rctk.metrics.measured.metric import need_model
from rctk.metrics.perturbation import median_norm
from rctk.threat import Norm, ThreatModel


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Median distance to the nearest misclassified image that an attack finds, with its bootstrap interval.

    Attributes:
        attack: A minimum-norm attack by name, such as ``fmn``, ``fab-t`` or ``hopskipjump``; its settings are the
            defaults.
        norm: How distances are measured.
    """

    name: ClassVar[str] = "distance"

    attack: str = "fmn"
    norm: Norm = "l2"

    def check(self, subject: Subject, threat: ThreatModel) -> None:
        """Refuse a form without gradients where the attack needs them, and an attack that a size bounds."""
        del threat
        attack = ATTACKS.build(self.attack)
        require_minimum_norm(attack)
        require_norm(attack, ThreatModel(norm=self.norm))
        if attack.kind == "gradient":
            need_model(f"{self.name}:attack={self.attack}", subject)

    def __call__(
        self, subject: Subject, split: Split, threat: ThreatModel, *, seed: int, batch_size: int
    ) -> dict[str, Any]:
        """Return the median over all images, misclassified ones as 0 and failures as infinite, which JSON has not."""
        del threat
        found = minimum_norm(
            subject.predict,
            split,
            ATTACKS.build(self.attack),
            self.norm,
            seed=seed,
            batch_size=batch_size,
            model=subject.model,
        )
        value, low, high = median_norm(found.clean, found.found, found.distance, seed=seed)
        rest = {"mean": found.mean, "success_rate": found.success_rate, "samples": len(split)}
        return {"value": value, "low": low, "high": high, **rest}

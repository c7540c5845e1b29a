"""What every metric with passes of its own offers."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from rctk.data.split import Split
from rctk.evaluation.subjects import Subject
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError


class Metric(Protocol):
    """A frozen dataclass of settings; called with a form of a model and images, it returns JSON values."""

    name: ClassVar[str]

    def check(self, subject: Subject, threat: ThreatModel) -> None:
        """Refuse a form or a budget that it cannot be measured for, before anything runs."""
        ...

    def __call__(
        self, subject: Subject, split: Split, threat: ThreatModel, *, seed: int, batch_size: int
    ) -> dict[str, Any]:
        """Measure ``subject`` on ``split``; ``value`` is the headline."""
        ...


def need_model(metric: str, subject: Subject) -> None:
    """Refuse a form that cannot be differentiated."""
    if subject.model is None:
        raise AttackError(
            f"{metric} needs gradients and {subject.name} has no torch model; leave --metric {metric} out, or take "
            "distance:attack=hopskipjump, which asks for classes only"
        )

"""What every metric with passes of its own offers."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from rctk.data.split import Split
from rctk.evaluation.subjects import Subject
from rctk.threat import ThreatModel


class Metric(Protocol):
    """A frozen dataclass of settings; called with a form of a model and images, it returns JSON values."""

    name: ClassVar[str]

    def __call__(
        self, subject: Subject, split: Split, threat: ThreatModel, *, seed: int, batch_size: int
    ) -> dict[str, Any]:
        """Measure ``subject`` on ``split``; ``value`` is the headline."""
        ...

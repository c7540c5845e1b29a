"""CLEVER of a few images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from rctk.data.split import Split
from rctk.evaluation.subjects import Subject
from rctk.metrics.clever import Clever
from rctk.metrics.measured.metric import need_model
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class CleverOfImages:
    """CLEVER of a few images on the differentiable form: an estimate of the nearest misclassified image, no bound.

    Attributes:
        images: The first so many of the split; one costs ``batches * samples * top`` backward passes.
        norm: ``l2`` or ``linf``.
        radius: Of the ball that is sampled; caps the score.
        batches: Maxima that the distribution is fitted to; the paper takes 500.
        samples: Points per maximum; the paper takes 1024.
        top: Only the so many highest wrong classes.
    """

    name: ClassVar[str] = "clever"

    images: int = 10
    norm: Literal["l2", "linf"] = "l2"
    radius: float = 5.0
    batches: int = 50
    samples: int = 128
    top: int = 3

    def __post_init__(self) -> None:
        if self.images < 1:
            raise OptionError(f"clever:images must be at least 1, got {self.images}")
        self._one()

    def _one(self) -> Clever:
        return Clever(norm=self.norm, radius=self.radius, batches=self.batches, samples=self.samples, top=self.top)

    def check(self, subject: Subject, threat: ThreatModel) -> None:
        """Refuse a form without gradients."""
        del threat
        need_model(self.name, subject)

    def __call__(
        self, subject: Subject, split: Split, threat: ThreatModel, *, seed: int, batch_size: int
    ) -> dict[str, Any]:
        """Return the mean score, every score, and the share of gradients that were zero."""
        self.check(subject, threat)
        del batch_size
        assert isinstance(subject.model, nn.Module)
        generator, score = torch.Generator().manual_seed(seed), self._one()
        some = split.take(np.arange(min(self.images, len(split))))
        found = [
            score(subject.model, torch.from_numpy(image), int(label), generator)
            for image, label in zip(some.images, some.labels, strict=True)
        ]
        return {
            "value": float(np.mean([one.score for one in found])),
            "scores": [one.score for one in found],
            "zero_gradients": float(np.mean([one.zero_gradients for one in found])),
            "measured_on": subject.crafted_on("gradient"),
            "samples": len(found),
        }

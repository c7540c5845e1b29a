"""What a compressed module is worth, counted and judged by code that no step controls."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from rctk.data.split import Split, check_labels
from rctk.evaluation.module_predict import ModulePredict
from rctk.prune.cost import Cost, cost
from rctk_export.capture import Normalised
from rctk_export.input_spec import InputSpec

BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Cost and clean accuracy of a module.

    Attributes:
        cost: Parameters, multiplications, bytes.
        clean_accuracy: Share of ``samples`` images that it classifies rightly.
        samples: Images behind ``clean_accuracy``.
    """

    cost: Cost
    clean_accuracy: float
    samples: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self.cost), "clean_accuracy": self.clean_accuracy, "samples": self.samples}


def figures(module: nn.Module, spec: InputSpec, images: Split) -> Figures:
    """Count and judge ``module``, which maps normalised images to logits; it is left as it is."""
    clean = accuracy(Normalised(module, spec).eval(), images)
    return Figures(cost=cost(module, spec), clean_accuracy=clean, samples=len(images))


def accuracy(module: nn.Module, images: Split) -> float:
    """Return the share of ``images`` that ``module``, which reads them in [0, 1], classifies rightly."""
    predict, right = ModulePredict(module), 0
    for x, y in images.batches(BATCH):
        logits = predict(x)
        check_labels(images, logits.shape[1])
        right += int((logits.argmax(axis=1) == y).sum())
    return right / len(images)

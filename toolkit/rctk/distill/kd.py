"""Knowledge distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.distill.step import Distillation
from rctk.distill.teacher import Teacher, soft_divergence
from rctk.train.objective import Objective
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class KdLoss:
    """``alpha CE(student, label) + (1 - alpha) t^2 KL(teacher_t || student_t)`` on clean images.

    Attributes:
        teacher: Whose answers are learnt.
        temperature: ``t``.
        alpha: Weight of the labels.
    """

    eps: ClassVar[float] = 0.0

    teacher: Teacher
    temperature: float
    alpha: float

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return the mean over the batch; see :class:`rctk.train.objective.Objective`."""
        logits = model(x)
        soft = soft_divergence(logits, self.teacher(x), self.temperature)
        return self.alpha * F.cross_entropy(logits, y) + (1 - self.alpha) * soft


@dataclass(frozen=True, kw_only=True)
class Kd(Distillation):
    """Train the module on the softened answers of its parent, or of another teacher, and a little on labels.

    Reference:
        Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. https://arxiv.org/abs/1503.02531
    """

    temperature: float = 4.0
    """How much the answers of both are softened."""
    alpha: float = 0.1
    """Weight of the labels; the teacher has the rest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.temperature < float("inf") and 0 <= self.alpha <= 1):
            raise OptionError(
                f"distill.kd needs temperature > 0 and alpha in [0, 1], got {self.temperature} and {self.alpha}"
            )

    def objective_of(self, teacher: Teacher) -> Objective:
        """See :class:`Distillation`."""
        return KdLoss(teacher=teacher, temperature=self.temperature, alpha=self.alpha)

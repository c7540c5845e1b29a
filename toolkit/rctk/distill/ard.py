"""Adversarially robust distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.distill.step import AttackedDistillation
from rctk.distill.teacher import Teacher, soft_divergence
from rctk.train.inner import Adversarial
from rctk.train.objective import Objective
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class ArdLoss(Adversarial):
    """``alpha t^2 KL(teacher_t(x) || student_t(x + d)) + (1 - alpha) CE(student(x), y)``; ``d`` raises CE.

    Attributes:
        teacher: Sees clean images.
        temperature: ``t``.
        alpha: Weight of the teacher.
    """

    name: ClassVar[str] = "distill.ard"

    teacher: Teacher
    temperature: float
    alpha: float

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean over the batch; see :class:`rctk.train.objective.Objective`."""
        attacked = self.attacked(model, x, y, generator)
        soft = soft_divergence(model(attacked), self.teacher(x), self.temperature)
        hard = F.cross_entropy(model(x), y) if self.alpha < 1 else 0.0
        return self.alpha * soft + (1 - self.alpha) * hard


@dataclass(frozen=True, kw_only=True)
class Ard(AttackedDistillation):
    """Train the module to answer under attack as a robust teacher answers on clean images.

    The release averages the divergence over classes too, so its ``alpha`` of 1 has a tenth of our weight on ten
    classes; with ``alpha`` = 1 only the learning rate feels it.

    Reference:
        Goldblum et al., "Adversarially Robust Distillation", AAAI 2020. https://arxiv.org/abs/1905.09747
    """

    temperature: float = 30.0
    """How much the answers of both are softened."""
    alpha: float = 1.0
    """Weight of the teacher; labels have the rest."""
    attack_mode: Literal["eval", "train"] = "train"
    """Mode of the module while it is attacked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.temperature < float("inf") and 0 <= self.alpha <= 1):
            raise OptionError(
                f"distill.ard needs temperature > 0 and alpha in [0, 1], got {self.temperature} and {self.alpha}"
            )

    def objective_of(self, teacher: Teacher) -> Objective:
        """See :class:`rctk.distill.step.Distillation`."""
        return ArdLoss(**self.attack, teacher=teacher, temperature=self.temperature, alpha=self.alpha)

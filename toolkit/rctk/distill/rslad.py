"""Robust soft labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from rctk.distill.step import AttackedDistillation
from rctk.distill.teacher import Teacher, soft_divergence
from rctk.train.inner import Adversarial
from rctk.train.objective import Objective
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class RsladLoss(Adversarial):
    """``robust KL(teacher(x) || student(x + d)) + (1 - robust) KL(teacher(x) || student(x))``; ``d`` raises the first.

    Attributes:
        teacher: Sees clean images.
        robust: Weight of the attacked images.
    """

    name: ClassVar[str] = "distill.rslad"
    start: ClassVar[Literal["uniform", "gaussian"]] = "gaussian"

    teacher: Teacher
    robust: float

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return the mean over the batch, which knows no label; see :class:`rctk.train.objective.Objective`."""
        soft = self.teacher(x)
        attacked = self.attacked(model, x, soft, generator, lambda out, aim: len(out) * soft_divergence(out, aim, 1.0))
        divergence = soft_divergence(model(attacked), soft, 1.0)
        return self.robust * divergence + (1 - self.robust) * soft_divergence(model(x), soft, 1.0)


@dataclass(frozen=True, kw_only=True)
class Rslad(AttackedDistillation):
    """Train the module on the soft labels of a robust teacher everywhere, also to attack it; no hard labels.

    Reference:
        Zi et al., "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better", ICCV 2021.
        https://arxiv.org/abs/2108.07969
    """

    robust: float = 5 / 6
    """Weight of attacked images; clean ones have the rest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.robust <= 1:
            raise OptionError(f"distill.rslad needs robust in [0, 1], got {self.robust}")

    def objective_of(self, teacher: Teacher) -> Objective:
        """See :class:`rctk.distill.step.Distillation`."""
        return RsladLoss(**self.attack, teacher=teacher, robust=self.robust)

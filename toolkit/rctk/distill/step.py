"""What all distillation steps share: a teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from torch import nn

from rctk.compress.step import Context
from rctk.distill.teacher import Teacher, fitting_teacher, teacher_of
from rctk.train.inner import Adversarial
from rctk.train.objective import Objective
from rctk.train.step import TrainingStep


@dataclass(frozen=True, kw_only=True)
class Distillation(TrainingStep, ABC):
    """A module step that trains on the answers of a teacher; all settings of the training loop can be given."""

    stage: ClassVar[str] = "distill"

    teacher: str = ""
    """Checkpoint of the teacher; the module that entered the recipe by default."""

    @abstractmethod
    def objective_of(self, teacher: Teacher) -> Objective:
        """Return what is minimised."""

    def check_ready(self, module: nn.Module, context: Context) -> None:
        """Refuse a teacher that cannot be read, or that answers other images or with other classes."""
        if self.teacher:
            fitting_teacher(self.teacher, module, context, learner="student")

    def objective_in(self, context: Context) -> Objective:
        """See :class:`rctk.train.step.TrainingStep`."""
        return self.objective_of(teacher_of(self.teacher, context))


@dataclass(frozen=True, kw_only=True)
class AttackedDistillation(Distillation):
    """Distillation that attacks each batch."""

    eps: float = Adversarial.eps
    """Budget of the attack on images in [0, 1], linf."""
    steps: int = Adversarial.steps
    """Its gradient steps."""
    step_size: float = Adversarial.step_size
    """Length of one as a share of eps."""
    attack_mode: Literal["eval", "train"] = "eval"
    """Mode of the module while it is attacked."""

    @property
    def attack(self) -> dict[str, Any]:
        """Settings of :class:`rctk.train.inner.Adversarial`."""
        return {field.name: getattr(self, field.name) for field in fields(Adversarial)}

    def __post_init__(self) -> None:
        super().__post_init__()
        _Checked(**self.attack)


@dataclass(frozen=True, kw_only=True)
class _Checked(Adversarial):
    """Checks the settings of the attack before there is a teacher."""

    name: ClassVar[str] = "distillation under attack"

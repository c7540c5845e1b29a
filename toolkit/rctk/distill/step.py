"""What all distillation steps share: a teacher, and the training loop."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from torch import nn

from rctk.compress.step import Context
from rctk.distill.teacher import Teacher, teacher_of
from rctk.train.inner import Adversarial
from rctk.train.loop import train
from rctk.train.objective import Objective
from rctk.train.resume import ResumeFile
from rctk.train.settings import Epoch, LoopSettings, TrainSettings


@dataclass(frozen=True, kw_only=True)
class Distillation(LoopSettings, ABC):
    """A module step that trains on the answers of a teacher; all settings of the training loop can be given."""

    kind: ClassVar[Literal["module"]] = "module"

    teacher: str = ""
    """Checkpoint of the teacher; the module that entered the recipe by default."""
    epochs: int = 3
    """Passes over the training images."""
    lr: float = 0.01
    """Largest learning rate."""
    schedule: Literal["cosine", "cyclic", "multistep", "constant"] = "cosine"
    """How the learning rate moves."""
    keep_zeros: bool = True
    """Weights that are zero stay zero."""

    @abstractmethod
    def objective_of(self, teacher: Teacher) -> Objective:
        """Return what is minimised."""

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module``, trained; see :class:`rctk.compress.step.ModuleStep`."""
        shared = {field.name: getattr(self, field.name) for field in fields(LoopSettings)}
        objective = self.objective_of(teacher_of(self.teacher, context))
        settings = TrainSettings(**shared, objective=objective, seed=context.seed)

        def say(epoch: Epoch, _module: nn.Module) -> None:
            robust = f", {epoch.robust_accuracy:.2%} under PGD" if objective.eps else ""
            found = f"loss {epoch.loss:.3f}, validation {epoch.clean_accuracy:.2%}{robust}"
            context.progress.note(f"epoch {epoch.number}/{self.epochs}: {found}")

        train(
            module,
            context.train,
            context.validation,
            settings,
            input=context.input,
            progress=say,
            bars=context.progress,
            resume=self._resume(module, context),
        )
        return module

    def _resume(self, module: nn.Module, context: Context) -> ResumeFile | None:
        """Return the state of this step on these weights."""
        if context.folder is None:
            return None
        digest = hashlib.sha256(repr(self).encode())
        for value in module.state_dict().values():
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        name = f"distill-{digest.hexdigest()[:16]}.pt"
        return ResumeFile(path=context.folder / name, go_on=True, needed=False)


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

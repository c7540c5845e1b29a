"""What every step of a recipe shares that trains: the loop with its progress, and the state it resumes from."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from rctk.compress.step import Context
from rctk.train.loop import train
from rctk.train.objective import Objective, build_objective
from rctk.train.resume import ResumeFile
from rctk.train.settings import Epoch, History, LoopSettings, TrainSettings
from rctk.train.standard import Standard


@dataclass(frozen=True, kw_only=True)
class TrainingStep(LoopSettings, ABC):
    """A module step that trains; the most robust epoch on the validation images is kept."""

    kind: ClassVar[Literal["module"]] = "module"
    stage: ClassVar[str]
    """What progress and the file with the state call it."""

    epochs: int = 3
    """Passes over the training images."""
    lr: float = 0.01
    """Largest learning rate."""
    schedule: Literal["cosine", "cyclic", "multistep", "constant"] = "cosine"
    """How the learning rate moves."""
    keep_zeros: bool = True
    """Weights that are zero stay zero."""

    @abstractmethod
    def objective_in(self, context: Context) -> Objective:
        """Return what is minimised."""

    def settings(self, objective: Objective, *, seed: int) -> TrainSettings:
        """Return the settings of the loop."""
        return TrainSettings.of(self, objective, seed=seed)

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module``, trained; see :class:`rctk.compress.step.ModuleStep`."""
        settings = self.settings(self.objective_in(context), seed=context.seed)
        train_stage(
            module, context, settings, stage=self.stage, resume=state_of(self, module, context, stage=self.stage)
        )
        return module


def state_of(step: object, module: nn.Module, context: Context, *, stage: str) -> ResumeFile | None:
    """Return the state of this very step on these very weights, so that a recipe goes on where it was stopped.

    Args:
        step: Its ``repr`` holds every setting.
        module: With the weights that training starts from.
        context: Without a folder nothing is kept.
        stage: Word that the file begins with.
    """
    if context.folder is None:
        return None
    digest = hashlib.sha256(repr(step).encode())
    for value in module.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return ResumeFile(path=context.folder / f"{stage}-{digest.hexdigest()[:16]}.pt", go_on=True, needed=False)


def check_training(step: object) -> None:
    """Refuse what the training of ``step`` would refuse on this machine, before the steps in front of it take hours."""
    if isinstance(step, LoopSettings):
        objective = getattr(step, "objective", None)
        TrainSettings.of(step, build_objective(objective) if objective else Standard(), seed=0).resolved()


def train_stage(  # what the loop takes, and how its epochs are told
    module: nn.Module,
    context: Context,
    settings: TrainSettings,
    *,
    stage: str,
    resume: ResumeFile | None = None,
    remark: Callable[[], str] = str,
) -> History:
    """Train ``module`` in place on the images of ``context``, and say every epoch.

    Args:
        module: Maps normalised images to logits.
        context: Images and progress.
        settings: All settings of the loop.
        stage: What progress calls this.
        resume: Where the state after each epoch is kept.
        remark: What else is said of an epoch.
    """

    def say(epoch: Epoch, _module: nn.Module) -> None:
        context.progress.note(f"{stage} epoch {epoch.number}/{settings.epochs}  {epoch}{remark()}")

    return train(
        module,
        context.train,
        context.validation,
        settings,
        input=context.input,
        progress=say,
        bars=context.progress,
        resume=resume,
    )


def read_objective(text: str) -> Objective:
    """Make an objective from a step's setting, where ``;`` stands for ``,``: ``pgd-at:eps=8/255;steps=7``."""
    return build_objective(text)

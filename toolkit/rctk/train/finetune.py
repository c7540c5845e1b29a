"""Training as a step of a recipe."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

from torch import nn

from rctk.compress.step import Context
from rctk.train.loop import train
from rctk.train.objective import build_objective
from rctk.train.resume import ResumeFile
from rctk.train.settings import Epoch, LoopSettings, TrainSettings


@dataclass(frozen=True, kw_only=True)
class Finetune(LoopSettings):
    """Train the module on, for example after pruning; weights that are zero stay zero.

    The most robust epoch on the validation images is kept. All settings of the training loop can be given; objective
    and augmentation bring settings of their own, separated by ``;`` since the comma separates those of the step:
    ``train.finetune:objective=pgd-at:eps=8/255;steps=7,augment=crop+flip,epochs=3,lr=0.01``.
    """

    kind: ClassVar[Literal["module"]] = "module"

    objective: str = "train.standard"
    """What is minimised; see `rctk list objectives`."""
    epochs: int = 3
    """Passes over the training images."""
    lr: float = 0.01
    """Largest learning rate."""
    schedule: Literal["cosine", "cyclic", "multistep", "constant"] = "cosine"
    """How the learning rate moves."""
    keep_zeros: bool = True
    """Weights that are zero stay zero."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.settings(seed=0)  # refuses unknown objectives before anything is computed

    def settings(self, *, seed: int) -> TrainSettings:
        """Return the settings of the loop."""
        shared = {field.name: getattr(self, field.name) for field in fields(LoopSettings)}
        return TrainSettings(
            **shared,
            objective=build_objective(self.objective.replace(";", ",")),
            seed=seed,
        )

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module``, trained; see :class:`rctk.compress.step.ModuleStep`."""

        def say(epoch: Epoch, _module: nn.Module) -> None:
            context.progress.note(f"finetune epoch {epoch.number}/{self.epochs}  {epoch}")

        train(
            module,
            context.train,
            context.validation,
            self.settings(seed=context.seed),
            input=context.input,
            progress=say,
            bars=context.progress,
            resume=self._resume(module, context),
        )
        return module

    def _resume(self, module: nn.Module, context: Context) -> ResumeFile | None:
        """Return the state of this very step on these very weights, so that a recipe goes on where it was stopped."""
        if context.folder is None:
            return None
        digest = hashlib.sha256(repr(self).encode())
        for value in module.state_dict().values():
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return ResumeFile(
            path=Path(context.folder) / f"finetune-{digest.hexdigest()[:16]}.pt", go_on=True, needed=False
        )

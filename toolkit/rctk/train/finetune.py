"""Training as a step of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rctk.compress.step import Context
from rctk.train.objective import Objective
from rctk.train.step import TrainingStep, read_objective


@dataclass(frozen=True, kw_only=True)
class Finetune(TrainingStep):
    """Train the module on, for example after pruning; weights that are zero stay zero.

    The most robust epoch on the validation images is kept. All settings of the training loop can be given; objective
    and augmentation bring settings of their own, separated by ``;`` since the comma separates those of the step:
    ``train.finetune:objective=pgd-at:eps=8/255;steps=7,augment=crop+flip,epochs=3,lr=0.01``.
    """

    stage: ClassVar[str] = "finetune"

    objective: str = "train.standard"
    """What is minimised; see `rctk list objectives`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        read_objective(self.objective)  # refuses unknown objectives before anything is computed

    def objective_in(self, context: Context) -> Objective:  # noqa: ARG002  # only a teacher needs it
        """See :class:`rctk.train.step.TrainingStep`."""
        return read_objective(self.objective)

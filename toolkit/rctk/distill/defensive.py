"""Defensive distillation, a negative control."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.compress.step import Context
from rctk.distill.teacher import Teacher
from rctk.train.objective import Objective
from rctk.train.step import TrainingStep, state_of
from rctk.train.to_the_end import train_to_the_end
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class TemperedLoss:
    """``CE(softmax(logits / t), aim)``; the aim is the label, or what a teacher answers at ``t``.

    Attributes:
        temperature: ``t``.
        teacher: Whose soft labels are learnt; None for the labels themselves.
    """

    eps: ClassVar[float] = 0.0

    temperature: float
    teacher: Teacher | None = None

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return the mean over the batch; see :class:`rctk.train.objective.Objective`."""
        aim = y if self.teacher is None else (self.teacher(x) / self.temperature).softmax(dim=1)
        return F.cross_entropy(model(x) / self.temperature, aim)


@dataclass(frozen=True, kw_only=True)
class Defensive(TrainingStep):
    """Negative control: masks gradients and protects from nothing, so attacks and audits must see through it.

    The module is trained on at a high temperature on labels, and a copy of the module as it came is trained at that
    temperature on the soft labels of the first. It is deployed at temperature 1, where its logits are about ``t`` times
    as large: softmax saturates, and gradients of the cross-entropy vanish in float32. FGSM and PGD then find less, and
    robustness is as it was: Carlini and Wagner break it with a loss on logits ("Towards Evaluating the
    Robustness of Neural Networks", IEEE S&P 2017, https://arxiv.org/abs/1608.04644), and so do APGD with the DLR loss
    and any attack on logits that are divided by ``t``. Never report its robust accuracy under FGSM or PGD as a gain.

    Both trainings keep their last epoch, since logits grow until then. The paper trains both networks from the
    beginning; here both begin with the weights of the module. Gradients are ``t`` times smaller as long as logits are:
    an untrained module wants a larger ``lr``.

    Reference:
        Papernot et al., "Distillation as a Defense to Adversarial Perturbations against Deep Neural Networks", IEEE S&P
        2016, section IV, with temperatures up to 100. https://arxiv.org/abs/1511.04508
    """

    stage: ClassVar[str] = "defensive distillation"

    temperature: float = 20.0
    """What logits are divided by in both trainings."""
    epochs: int = 20
    """Passes over the training images, in either training."""
    lr: float = 0.1
    """Largest learning rate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.temperature < float("inf"):
            raise OptionError(f"distill.defensive needs a temperature of 1 or more, got {self.temperature}")

    def objective_in(self, context: Context) -> Objective:  # noqa: ARG002  # the teacher is trained first
        """See :class:`rctk.train.step.TrainingStep`; that of the first training."""
        return TemperedLoss(temperature=self.temperature)

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module``, trained; see :class:`rctk.compress.step.ModuleStep`."""
        teacher = Teacher.of(self._taught(module, context), context.input, name="at high temperature")
        self._train(module, TemperedLoss(temperature=self.temperature, teacher=teacher), context, "student")
        return module

    def _taught(self, module: nn.Module, context: Context) -> nn.Module:
        """Return the trained teacher; where the step was stopped behind it, the one of that time."""
        teacher = copy.deepcopy(module)
        key = {"training images": context.train.fingerprint}
        kept = state_of(self, module, context, stage="finished teacher")
        state = kept.load(key) if kept else None
        if state is not None:
            teacher.load_state_dict(state["weights"])
            return teacher
        self._train(teacher, self.objective_in(context), context, "teacher")
        if kept:
            kept.save(key, {"weights": teacher.state_dict()})
        return teacher

    def _train(self, module: nn.Module, objective: Objective, context: Context, who: str) -> None:
        train_to_the_end(
            module,
            context,
            self.settings(objective, seed=context.seed),
            stage=f"{self.stage}, {who},",
            resume=state_of(self, module, context, stage=who),
        )

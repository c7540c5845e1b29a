"""Distillation from the float graph, beside any objective."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rctk.compress.step import Draft
from rctk.distill.teacher import Teacher, soft_divergence
from rctk.train.normalised import Normalised
from rctk.train.objective import Objective
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_files import serialize
from rctk_export.onnx_module import OnnxModule


def graph_teacher(draft: Draft) -> Teacher:
    """Return the float graph of ``draft`` as a teacher."""
    shape = InputSpec(channels=draft.input.channels, height=draft.input.height, width=draft.input.width)
    model = OnnxModule(draft.model).requires_grad_(requires_grad=False)
    digest = hashlib.sha256(serialize(draft.model)).hexdigest()
    return Teacher(name="float graph", digest=digest, _model=Normalised(model, shape).eval())


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """``(1 - share) objective + share t^2 KL(teacher_t || student_t)`` on clean images.

    Attributes:
        objective: What is minimised besides.
        teacher: Whose answers are learnt.
        share: Weight of these.
        temperature: ``t``.

    Reference:
        Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. https://arxiv.org/abs/1503.02531
    """

    objective: Objective
    teacher: Teacher
    share: float
    temperature: float

    @property
    def eps(self) -> float:
        """Budget of the objective."""
        return self.objective.eps

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss; see :class:`rctk.train.objective.Objective`."""
        own = self.objective(model, x, y, generator) if self.share < 1 else x.new_zeros(())
        soft = soft_divergence(model(x), self.teacher(x), self.temperature)
        return (1 - self.share) * own + self.share * soft

"""The model whose answers are learnt, and how far a student is from them."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.checkpoint import load_model
from rctk.compress.step import Context
from rctk.train.normalised import Normalised
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError, OptionError


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A frozen model in evaluation mode, with its own normalisation.

    Attributes:
        name: Where it comes from.
        digest: SHA-256 of its weights.
    """

    name: str
    digest: str
    _model: Normalised = field(repr=False, compare=False)

    @classmethod
    def of(cls, module: nn.Module, spec: InputSpec, *, name: str) -> Teacher:
        """Take a copy of ``module``, which maps normalised images to logits."""
        own = copy.deepcopy(module).requires_grad_(requires_grad=False)
        digest = hashlib.sha256()
        for value in own.state_dict().values():
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return cls(name=name, digest=digest.hexdigest(), _model=Normalised(own, spec).eval())

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits ``(N, K)`` of images ``(N, C, H, W)`` in [0, 1], where these are."""
        with torch.no_grad():
            logits: Tensor = self._model.to(x.device)(x)
        return logits


def teacher_of(path: str, context: Context) -> Teacher:
    """Return the teacher in the file ``path``, or the module that entered the recipe where ``path`` is empty.

    Raises:
        OptionError: There is neither.
        ModelError: The file takes other images.
    """
    if not path:
        if context.parent is None:
            raise OptionError("distillation needs a teacher: run the step in a recipe, or give teacher=FILE")
        return Teacher.of(context.parent, context.input, name="parent")
    loaded = load_model(path)
    if loaded.input.shape != context.input.shape:
        raise ModelError(f"the teacher {path} takes images {loaded.input.shape}, the student {context.input.shape}")
    return Teacher.of(loaded.module, loaded.input, name=path)


def fitting_teacher(path: str, module: nn.Module, context: Context, *, learner: str) -> Teacher:
    """Return the teacher as :func:`teacher_of` does; :class:`ModelError` where it has other classes than ``module``.

    ``learner`` is what the message calls that.
    """
    teacher = teacher_of(path, context)
    image = torch.zeros(1, *context.input.shape)
    own, aim = Teacher.of(module, context.input, name="student")(image), teacher(image)
    _check_classes(own, aim, learner)
    return teacher


def _check_classes(student: Tensor, teacher: Tensor, learner: str) -> None:
    if student.shape != teacher.shape:
        raise ModelError(
            f"the teacher has {teacher.shape[1]} classes, the {learner} {student.shape[1]}; use another one"
        )


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``t^2 KL(softmax(teacher / t) || softmax(student / t))``, the mean over images.

    Some releases average over images *and* classes, so that their weight is ours times ``K``.

    Args:
        student: Logits ``(N, K)``.
        teacher: Logits ``(N, K)``.
        temperature: ``t``.

    Example:
        >>> float(soft_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[9.0, -9.0]]), 1.0))  # ln 2
        0.6931...
    """
    _check_classes(student, teacher, "student")
    own, aim = ((logits / temperature).log_softmax(dim=1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(own, aim, log_target=True, reduction="batchmean")

"""Robust self-training: adversarial training on images without labels too, which a teacher labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from rctk.compress.step import Context
from rctk.data import read_split
from rctk.data.leaks import tell_learning
from rctk.data.read import need_split
from rctk.data.split import Labels, Split
from rctk.distill.teacher import Teacher, fitting_teacher
from rctk.progress import Silent
from rctk.train.objective import Objective
from rctk.train.step import TrainingStep
from rctk.train.trades import Trades
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import DataError, OptionError

BATCH = 256
"""Images that the teacher labels at once."""


@dataclass(frozen=True, kw_only=True)
class Rst(TrainingStep):
    """Train by TRADES on labelled images and on extra ones that a teacher labels, as many of either.

    Labels of the extra images are ignored; each gets the class that the teacher finds likeliest. Both kinds are
    shuffled together after the fewer ones have been repeated: a batch is half and half on average, where the paper's is
    exactly, and an epoch takes twice the images of the larger kind. Extra images that are training or validation images
    already are left out. Images of the test set as extra ones would flatter every later figure.

    Reference:
        Carmon et al., "Unlabeled Data Improves Adversarial Robustness", NeurIPS 2019, algorithm 1, with batches of 256,
        a learning rate of 0.1 and 500,000 extra images for CIFAR-10. https://arxiv.org/abs/1905.13736
    """

    stage: ClassVar[str] = "robust self-training"

    extra: str
    """Data set of images without labels, NAME:SPLIT or PATH:SPLIT."""
    teacher: str = ""
    """Checkpoint of the model that labels them; the module that entered the recipe by default."""
    beta: float = Trades.beta
    """Weight of the divergence between clean and attacked answers."""
    eps: float = Trades.eps
    """Budget of the attack on images in [0, 1], linf."""
    steps: int = Trades.steps
    """Its gradient steps."""
    step_size: float = Trades.step_size
    """Length of one as a share of eps."""
    attack_mode: Literal["eval", "train"] = Trades.attack_mode
    """Mode of the module while it is attacked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.extra.strip():
            raise OptionError("train.rst needs extra images; write extra=NAME:SPLIT or extra=PATH:SPLIT")
        need_split(self.extra, "train.rst:extra")
        self._trades()

    def check_ready(self, module: nn.Module, context: Context) -> None:
        """Refuse extra images that cannot be read or are known already, and a teacher that does not fit."""
        extra = unseen(read_split(self.extra, input=context.input), replace(context, progress=Silent()))
        fitting_teacher(self.teacher, module, context, learner="module")
        tell_learning(extra, None, context.progress)

    def objective_in(self, context: Context) -> Objective:  # noqa: ARG002  # the teacher has done its part
        """See :class:`rctk.train.step.TrainingStep`."""
        return self._trades()

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module``, trained; see :class:`rctk.compress.step.ModuleStep`."""
        teacher = fitting_teacher(self.teacher, module, context, learner="module")
        extra = unseen(read_split(self.extra, input=context.input), context)
        labelled = self._labelled(extra, teacher, context)
        return super().__call__(module, replace(context, train=half_and_half(context.train, labelled, context.seed)))

    def _trades(self) -> Trades:
        return Trades(**{each.name: getattr(self, each.name) for each in fields(Trades)})

    def _labelled(self, extra: Split, teacher: Teacher, context: Context) -> Split:
        """Return the extra images with the teacher's classes."""
        device = self.resolved().accelerator
        labels: list[Labels] = []
        with context.progress.stage("label extra images", len(extra)) as step:
            for images, _ in extra.batches(BATCH):
                labels.append(teacher(torch.from_numpy(images).to(device)).argmax(dim=1).cpu().numpy())
                step(len(images))
        return replace(extra, labels=np.concatenate(labels))


def unseen(extra: Split, context: Context) -> Split:
    """Return the images of ``extra`` that are neither training nor validation images, and say how many are."""
    known = {_digest(image) for split in (context.train, context.validation) for image in split.images}
    rows = np.flatnonzero([_digest(image) not in known for image in extra.images])
    if not len(rows):
        raise DataError(f"every image of {extra.name} is a training or validation image already; name others as extra")
    if len(rows) < len(extra):
        context.progress.note(
            f"{len(extra) - len(rows):,} of {len(extra):,} images of {extra.name} are left out: they are training or "
            "validation images already"
        )
    return extra.take(rows)


def _digest(image: FloatNCHW) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def half_and_half(one: Split, two: Split, seed: int) -> Split:
    """Return the images of both, the fewer ones repeated until there are as many of either.

    Args:
        one: Its name and classes stay.
        two: As many classes.
        seed: Decides which images come once more than others.
    """
    count, rng = max(len(one), len(two)), np.random.default_rng(seed)
    parts = [each.take(np.resize(rng.permutation(len(each)), count)) for each in (one, two)]
    return Split(
        name=f"{one.name} and {two.name}",
        images=np.concatenate([each.images for each in parts]),
        labels=np.concatenate([each.labels for each in parts]),
        classes=one.classes,
    )

"""A few epochs between two rounds of pruning, or with a penalty before it."""

from __future__ import annotations

from torch import nn

from rctk.compress.step import Context
from rctk.train import ResumeFile, TrainSettings
from rctk.train.objective import Objective
from rctk.train.step import train_stage

CROPPED = 32
"""Colour images of this size or more are cropped and mirrored while fine-tuning; others stay as they are."""


def finetune(  # noqa: PLR0913  # what is trained, on what, how long, and what it is called
    module: nn.Module,
    context: Context,
    objective: Objective,
    *,
    epochs: int,
    lr: float,
    stage: str,
    resume: ResumeFile | None = None,
) -> None:
    """Train ``module`` in place; it keeps its zeros, and the weights of its best epoch on the validation images.

    Args:
        module: Maps normalised images to logits.
        context: Images, seed and progress.
        objective: What is minimised.
        epochs: Passes over the training images.
        lr: Largest learning rate; it falls to 0 along a cosine.
        stage: What progress calls this.
        resume: Where the state after each epoch is kept; see :func:`rctk.train.step.state_of`.
    """
    cropped = min(context.input.shape[1:]) >= CROPPED and context.input.channels == 3
    settings = TrainSettings(
        objective=objective,
        epochs=epochs,
        lr=lr,
        schedule="cosine",
        augment="crop-flip" if cropped else "none",
        keep_zeros=True,
        seed=context.seed,
    )
    train_stage(module, context, settings, stage=stage, resume=resume)

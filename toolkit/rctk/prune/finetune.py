"""A few epochs between two rounds of pruning, or with a penalty before it."""

from __future__ import annotations

from torch import nn

from rctk.compress.step import Context
from rctk.train import TrainSettings
from rctk.train.objective import Objective
from rctk.train.step import train_stage

CROPPED = 32
"""Colour images of this size or more are cropped and mirrored while fine-tuning; others stay as they are."""


def finetune(module: nn.Module, context: Context, objective: Objective, *, epochs: int, lr: float, stage: str) -> None:
    """Train ``module`` in place; it keeps the weights of its best epoch on the validation images.

    Args:
        module: Maps normalised images to logits.
        context: Images, seed and progress.
        objective: What is minimised.
        epochs: Passes over the training images.
        lr: Largest learning rate; it falls to 0 along a cosine.
        stage: What progress calls this.
    """
    cropped = min(context.input.shape[1:]) >= CROPPED and context.input.channels == 3
    settings = TrainSettings(
        objective=objective,
        epochs=epochs,
        lr=lr,
        schedule="cosine",
        augment="crop-flip" if cropped else "none",
        seed=context.seed,
    )
    train_stage(module, context, settings, stage=stage)

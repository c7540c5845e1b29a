"""A few epochs between two rounds of pruning, or with a penalty before it."""

from __future__ import annotations

from torch import nn

from rctk.compress.step import Context
from rctk.train import Epoch, TrainSettings, build_objective, train
from rctk.train.objective import Objective

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

    def tell(epoch: Epoch, _: nn.Module) -> None:
        robust = f", {epoch.robust_accuracy:.2%} robust" if objective.eps else ""
        context.progress.note(
            f"{stage}: epoch {epoch.number}, loss {epoch.loss:.3f}, validation {epoch.clean_accuracy:.2%} clean{robust}"
        )

    train(
        module,
        context.train,
        context.validation,
        settings,
        input=context.input,
        progress=tell,
        bars=context.progress,
    )


def read_objective(text: str) -> Objective:
    """Make an objective from a step's setting, where ``;`` stands for ``,``: ``pgd-at:eps=8/255;steps=7``."""
    return build_objective(text.replace(";", ","))

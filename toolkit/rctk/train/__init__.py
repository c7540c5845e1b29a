"""Training, plain and adversarial: a loop, and objectives and augmentations by name."""

from __future__ import annotations

from rctk.train.augmentation import AUGMENTATIONS, build_augmentations
from rctk.train.checkpoints import Checkpoints
from rctk.train.loop import train
from rctk.train.objective import OBJECTIVES, build_objective
from rctk.train.resume import ResumeFile
from rctk.train.settings import Epoch, History, LoopSettings, TrainSettings
from rctk.train.weights import draw_weights

__all__ = [
    "AUGMENTATIONS",
    "OBJECTIVES",
    "Checkpoints",
    "Epoch",
    "History",
    "LoopSettings",
    "ResumeFile",
    "TrainSettings",
    "build_augmentations",
    "build_objective",
    "draw_weights",
    "train",
]

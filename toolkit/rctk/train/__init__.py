"""Training, plain and adversarial: a loop, and objectives by name."""

from __future__ import annotations

from rctk.train.checkpoints import Checkpoints
from rctk.train.loop import train
from rctk.train.objective import OBJECTIVES, build_objective
from rctk.train.settings import Epoch, History, TrainSettings
from rctk.train.weights import draw_weights

__all__ = [
    "OBJECTIVES",
    "Checkpoints",
    "Epoch",
    "History",
    "TrainSettings",
    "build_objective",
    "draw_weights",
    "train",
]

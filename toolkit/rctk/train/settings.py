"""What a training run is told and what it tells."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from rctk.train.objective import Objective
from rctk.train.standard import Standard
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that decides the outcome of a training run, besides module and data.

    Attributes:
        objective: What is minimised; see :func:`rctk.train.build_objective`.
        epochs: Passes over the training images.
        batch_size: Images in a step; what is left over at the end of an epoch makes a smaller step.
        optimizer: ``sgd`` with momentum, or ``adamw``.
        lr: Largest learning rate.
        schedule: ``cosine`` falls from ``lr`` to 0; ``cyclic`` rises from 0 for two fifths of the steps and falls to 0
            again; ``constant`` stays.
        momentum: Of SGD.
        weight_decay: Of either optimizer.
        augment: ``crop`` shifts images by up to ``crop_padding`` pixels, ``crop-flip`` also mirrors them.
        crop_padding: Pixels; the 4 of CIFAR are too many for an 8x8 image.
        validation_eps: Budget of the attack that validates each epoch; ``None`` for that of the objective.
        validation_steps: Gradient steps of that attack, each a quarter of the budget long.
        seed: Of order, augmentation and attacks.
    """

    objective: Objective = field(default_factory=Standard)
    epochs: int = 30
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    schedule: Literal["cosine", "cyclic", "constant"] = "cyclic"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: Literal["none", "crop", "crop-flip"] = "none"
    crop_padding: int = 4
    validation_eps: float | None = None
    validation_steps: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.validation_steps) < 1:
            raise OptionError("epochs, batch_size and validation_steps must be at least 1")
        if not (0 < self.lr < math.inf and self.weight_decay >= 0 and 0 <= self.momentum < 1):
            raise OptionError(
                f"training needs lr > 0, weight_decay >= 0 and 0 <= momentum < 1, got {self.lr}, {self.weight_decay} "
                f"and {self.momentum}"
            )
        if self.validation_eps is not None and not 0 <= self.validation_eps <= 1:
            raise OptionError(f"validation_eps must lie in [0, 1], got {self.validation_eps}")
        if self.crop_padding < 0:
            raise OptionError(f"crop_padding must not be negative, got {self.crop_padding}")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One finished epoch; shares in [0, 1].

    Attributes:
        number: From 1.
        loss: Mean of the objective over the epoch.
        clean_accuracy: On the validation images.
        robust_accuracy: On the validation images under the validating attack: right when clean and when attacked.
        best: Whether this is the most robust epoch so far; of equals the one with more clean accuracy, then the first.
        seconds: Wall time, validation included.
    """

    number: int
    loss: float
    clean_accuracy: float
    robust_accuracy: float
    best: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class History:
    """What happened, and the weights at the best and at the last epoch.

    Attributes:
        epochs: In order.
        best_weights: State dict of the module after its most robust epoch.
        last_weights: State dict after the last epoch.
    """

    epochs: tuple[Epoch, ...]
    best_weights: dict[str, Tensor] = field(repr=False)
    last_weights: dict[str, Tensor] = field(repr=False)

    @property
    def best(self) -> Epoch:
        """The epoch that ``best_weights`` come from."""
        return [epoch for epoch in self.epochs if epoch.best][-1]

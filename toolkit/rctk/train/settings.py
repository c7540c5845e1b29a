"""What a training run is told and what it tells."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from torch import Tensor

from rctk.train.augmentation import Augmentation, build_augmentations
from rctk.train.hardware import Hardware
from rctk.train.objective import Objective
from rctk.train.schedule import milestones_of
from rctk.train.standard import Standard
from rctk_kernels.errors import OptionError

LARGEST_SEED = 2**63
"""What torch's generators take ends here."""


def need(who: str, *bounds: tuple[str, float, bool]) -> None:
    """Refuse the first setting that is out of its bounds, with its value.

    Args:
        who: What has these settings.
        bounds: What it needs, such as ``lr > 0``; the value that it has; whether that will do.

    Example:
        >>> need("training", ("lr > 0", 0.1, True), ("momentum < 1", 2.0, False))
        Traceback (most recent call last):
        rctk_kernels.errors.OptionError: training needs momentum < 1, got 2.0
    """
    for wanted, value, holds in bounds:
        if not holds:
            raise OptionError(f"{who} needs {wanted}, got {value}")


@dataclass(frozen=True, kw_only=True)
class LoopSettings(Hardware):
    """Numbers and words that steer the training loop."""

    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 128
    """Images in a step, on all devices together; what is left over in an epoch makes all its steps a little smaller."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer; sgd has momentum."""
    lr: float = 0.1
    """Largest learning rate."""
    schedule: Literal["cosine", "cyclic", "multistep", "constant"] = "cyclic"
    """How the learning rate moves; cyclic rises for two fifths of the steps and falls to 0."""
    milestones: str = "1/2+3/4"
    """Shares of a multistep run after which the learning rate falls tenfold."""
    momentum: float = 0.9
    """Momentum of sgd."""
    weight_decay: float = 5e-4
    """Weight decay."""
    augment: str = ""
    """Random changes of the training images, such as crop+flip or mixup:alpha=1.4; see `rctk list augmentations`."""
    averaging: Literal["none", "ema", "swa"] = "none"
    """Average the weights, over steps (ema) or over the last epochs (swa); the average is validated and saved."""
    ema_decay: float = 0.999
    """Weight of the past in each step of ema."""
    swa_start: float = 0.75
    """Share of the epochs after which swa begins."""
    keep_zeros: bool = False
    """Weights of a pruned model that are zero stay zero."""
    validation_eps: float | None = None
    """Linf budget of the attack that validates each epoch, 0 for none; that of the objective by default."""
    validation_steps: int = 10
    """Gradient steps of that attack, each a quarter of its budget long."""
    patience: int | None = None
    """Stop after so many epochs without a better one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size", "validation_steps"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.patience is not None and self.patience < 1:
            raise OptionError(f"patience must be at least 1, got {self.patience}; leave it out to run all epochs")
        need(
            "training",
            ("lr > 0 and finite", self.lr, 0 < self.lr < math.inf),
            ("weight_decay >= 0 and finite", self.weight_decay, 0 <= self.weight_decay < math.inf),
            ("0 <= momentum < 1", self.momentum, 0 <= self.momentum < 1),
        )
        if self.validation_eps is not None and not 0 <= self.validation_eps <= 1:
            raise OptionError(f"validation_eps must lie in [0, 1], got {self.validation_eps}")
        need(
            "averaging",
            ("0 < ema_decay < 1", self.ema_decay, 0 < self.ema_decay < 1),
            ("0 <= swa_start < 1", self.swa_start, 0 <= self.swa_start < 1),
        )
        milestones_of(self.milestones)
        build_augmentations(self.augment)

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """What ``augment`` names."""
        return build_augmentations(self.augment)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LoopSettings):
    """Everything that decides the outcome of a training run, besides module and data."""

    objective: Objective = field(default_factory=Standard)
    """What is minimised; see :func:`rctk.train.build_objective`."""
    seed: int = 0
    """Of order, augmentation and attacks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed < 0:
            raise OptionError(f"seed must not be negative, got {self.seed}")
        if self.seed >= LARGEST_SEED:
            raise OptionError(f"seed must be below 2**63, got {self.seed}; take a smaller one")
        if not getattr(self.objective, "mixed_labels", True) and any(each.mixes for each in self.augmentations):
            name = type(self.objective).__name__.lower()
            raise OptionError(f"{name} needs one class per image; leave mixup and cutmix out of augment")

    @classmethod
    def of(cls, source: object, objective: Objective, *, seed: int) -> TrainSettings:
        """Return the settings whose loop is that of ``source``, which has all fields of :class:`LoopSettings`."""
        shared = {each.name: getattr(source, each.name) for each in fields(LoopSettings)}
        return cls(**shared, objective=objective, seed=seed)

    @property
    def attack_eps(self) -> float:
        """Budget of the attack that validates each epoch; 0 for none."""
        return self.objective.eps if self.validation_eps is None else self.validation_eps


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
        eps: Budget of the validating attack; 0 where there was none.
    """

    number: int
    loss: float
    clean_accuracy: float
    robust_accuracy: float
    best: bool
    seconds: float
    eps: float = 0.0

    def __str__(self) -> str:
        """Say everything but the number in a line."""
        robust = f"  under PGD {self.robust_accuracy:.1%}" if self.eps else ""
        best = "  best" if self.best else ""
        return f"loss {self.loss:.3f}  clean {self.clean_accuracy:.1%}{robust}  {self.seconds:.1f} s{best}"


@dataclass(frozen=True, kw_only=True)
class History:
    """What happened, and the weights at the best and at the last epoch.

    Attributes:
        epochs: In order.
        best_weights: State dict of the module after its most robust epoch.
        last_weights: State dict after the last epoch.
        stopped: Why the run ended before its last epoch; empty where it did not.
        rank: Of this process among those that trained together; 0 prints and saves.
    """

    epochs: tuple[Epoch, ...]
    best_weights: dict[str, Tensor] = field(repr=False)
    last_weights: dict[str, Tensor] = field(repr=False)
    stopped: str = ""
    rank: int = 0

    @property
    def best(self) -> Epoch:
        """The epoch that ``best_weights`` come from."""
        return [epoch for epoch in self.epochs if epoch.best][-1]

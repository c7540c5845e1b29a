"""Flags of ``rctk train`` that steer the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal  # noqa: F401  cyclopts evaluates inherited annotations in this module

from cyclopts import Parameter

from rctk.cli.flags import Fraction, Switch, Whole, fraction, whole
from rctk.train import LoopSettings, TrainSettings, build_objective

OptionalWhole = Annotated[int | None, Parameter(converter=whole)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainFlags(LoopSettings):
    """Those of :class:`rctk.train.LoopSettings`, read as the command line reads numbers, and two methods by name."""

    objective: str = "train.standard"
    """What is minimised, such as train.standard or train.pgd_at:eps=0.15; see `rctk list objectives`."""
    epochs: Whole = LoopSettings.epochs
    """Passes over the training images."""
    batch_size: Whole = LoopSettings.batch_size
    """Images in a step, on all devices together."""
    devices: Whole = LoopSettings.devices
    """How many GPUs, or processes on a CPU; each takes its share of every batch."""
    patience: OptionalWhole = LoopSettings.patience
    """Stop after so many epochs without a better one."""
    validation_eps: Annotated[float | None, Parameter(converter=fraction, allow_leading_hyphen=True)] = None
    """Linf budget of the attack that validates each epoch, 0 for none; that of the objective by default."""
    validation_steps: Whole = LoopSettings.validation_steps
    """Gradient steps of that attack."""
    channels_last: Annotated[bool, Parameter(negative="--channels-first")] = LoopSettings.channels_last
    """Keep the channels of a pixel side by side in memory, which is faster."""
    keep_zeros: Switch = LoopSettings.keep_zeros
    """Weights that are zero stay zero."""
    swa_start: Fraction = LoopSettings.swa_start
    """Share of the epochs after which swa begins."""

    def settings(self, seed: int) -> TrainSettings:
        """Return the settings of the loop, with what ``auto`` means on this machine."""
        return TrainSettings.of(self, build_objective(self.objective), seed=seed).resolved()


NO_TRAIN_FLAGS = TrainFlags()

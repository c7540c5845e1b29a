"""What a training step minimises."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rctk_export.registry import Family


class Objective(Protocol):
    """A frozen dataclass of settings that turns a batch into a loss."""

    @property
    def eps(self) -> float:
        """Budget in linf on images in [0, 1] that the objective trains against; 0 for none."""
        ...

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss to minimise, a scalar.

        Args:
            model: Maps images in [0, 1] to logits; in training mode.
            x: ``(N, C, H, W)`` in [0, 1].
            y: ``(N,)``, or shares of the classes ``(N, K)`` where an augmentation mixes images.
            generator: On the CPU; the only source of randomness.
        """
        ...


@runtime_checkable
class Replaying(Protocol):
    """An objective that takes several optimizer steps on each batch and carries tensors from one to the next."""

    @property
    def replays(self) -> int:
        """Steps on each batch."""
        ...

    def replay(self, model: nn.Module, x: Tensor, y: Tensor, carried: dict[str, Tensor]) -> Tensor:
        """Return the loss of one step.

        Args:
            model: As in :class:`Objective`.
            x: As in :class:`Objective`; the first batch of a run is the largest.
            y: As in :class:`Objective`.
            carried: Empty at first; whatever stands in it comes back in the next step, also after a resumed run. Keys
                and shapes stay.
        """
        ...


@runtime_checkable
class Guarded(Protocol):
    """An objective that can collapse; the run is then stopped and the collapsed epoch thrown away."""

    @property
    def max_drop(self) -> float:
        """Largest loss of watched accuracy from one epoch to the next, a share."""
        ...

    def watched(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        """Return the watched accuracy on some training images, the same after every epoch; the model evaluates."""
        ...


OBJECTIVES: Family[Objective] = Family(
    "training objective",
    {
        "train.adv_mix": "rctk.train.adv_mix:AdvMix",
        "train.fast_at": "rctk.train.fast_at:FastAt",
        "train.free_at": "rctk.train.free_at:FreeAt",
        "train.gradalign": "rctk.train.gradalign:GradAlign",
        "train.mart": "rctk.train.mart:Mart",
        "train.pgd_at": "rctk.train.pgd_at:PgdAt",
        "train.qat_at": "rctk.qat.qat_at:QatAt",
        "train.standard": "rctk.train.standard:Standard",
        "train.trades": "rctk.train.trades:Trades",
    },
)


def build_objective(text: str) -> Objective:
    """Make an objective from its id with settings; ``pgd-at`` is short for ``train.pgd_at``.

    Settings may be separated by ``;`` where the comma means something else, as in a step of a recipe.

    Example:
        >>> build_objective("pgd-at:eps=8/255,steps=7").steps  # type: ignore[attr-defined]
        7
    """
    name, colon, settings = text.replace(";", ",").partition(":")
    return OBJECTIVES.build("train." + name.removeprefix("train.").replace("-", "_") + colon + settings)

"""What a training step minimises."""

from __future__ import annotations

from typing import Protocol

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
            y: ``(N,)``.
            generator: On the CPU; the only source of randomness.
        """
        ...


OBJECTIVES: Family[Objective] = Family(
    "training objective",
    {
        "train.pgd_at": "rctk.train.pgd_at:PgdAt",
        "train.standard": "rctk.train.standard:Standard",
    },
)


def build_objective(text: str) -> Objective:
    """Make an objective from its id with settings; ``pgd-at`` is short for ``train.pgd_at``.

    Example:
        >>> build_objective("pgd-at:eps=8/255,steps=7").steps  # type: ignore[attr-defined]
        7
    """
    name, colon, settings = text.partition(":")
    return OBJECTIVES.build("train." + name.removeprefix("train.").replace("-", "_") + colon + settings)

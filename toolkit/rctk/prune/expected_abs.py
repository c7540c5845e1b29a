"""Channels by how much they say on average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rctk.prune.criterion import ChannelGroup, Need, mean_over_layers


@dataclass(frozen=True, kw_only=True)
class ExpectedAbs:
    """Mean absolute activation over images and positions, averaged over the layers that read it.

    Reference:
        Min and Motani, "DropNet: Reducing Neural Network Complexity via Iterative Pruning", ICML 2020.
        https://proceedings.mlr.press/v119/tan20a.html
    """

    need: ClassVar[Need] = "maps"

    def __call__(self, group: ChannelGroup) -> Tensor:
        """Return ``(C,)``."""
        return mean_over_layers([maps.abs().mean(dim=(0, 2, 3)) for maps in group.maps])

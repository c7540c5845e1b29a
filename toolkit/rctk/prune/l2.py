"""Filters by their Euclidean norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rctk.prune.criterion import ChannelGroup, Need, mean_over_layers


@dataclass(frozen=True, kw_only=True)
class L2:
    """L2 norm of the filters that produce a channel, averaged over the layers that produce it.

    Reference:
        Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, and as the default of Fang et al., "DepGraph:
        Towards Any Structural Pruning", CVPR 2023. https://arxiv.org/abs/2301.12900
    """

    need: ClassVar[Need] = "weights"

    def __call__(self, group: ChannelGroup) -> Tensor:
        """Return ``(C,)``."""
        return mean_over_layers([weight.norm(dim=1) for weight in group.producers])

"""Filters by the sum of their absolute weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rctk.prune.criterion import ChannelGroup, Need, mean_over_layers


@dataclass(frozen=True, kw_only=True)
class L1:
    """L1 norm of the filters that produce a channel, averaged over the layers that produce it.

    Reference:
        Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017. https://arxiv.org/abs/1608.08710
    """

    need: ClassVar[Need] = "weights"

    def __call__(self, group: ChannelGroup) -> Tensor:
        """Return ``(C,)``."""
        return mean_over_layers([weight.abs().sum(dim=1) for weight in group.producers])

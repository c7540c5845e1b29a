"""Channels by the rank of their feature maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rctk.prune.criterion import ChannelGroup, Need, mean_over_layers


@dataclass(frozen=True, kw_only=True)
class HRank:
    """Mean matrix rank of the feature maps, averaged over the layers that read them.

    A map of one pixel, as behind global pooling, has rank 0 or 1.

    Attributes:
        maps: At most so many images; the rank hardly depends on them and takes a singular value decomposition each.

    Reference:
        Lin et al., "HRank: Filter Pruning Using High-Rank Feature Map", CVPR 2020. https://arxiv.org/abs/2002.10179
    """

    need: ClassVar[Need] = "maps"

    maps: int = 64

    def __call__(self, group: ChannelGroup) -> Tensor:
        """Return ``(C,)``, from 0 to the smaller side of the map."""
        ranks = [torch.linalg.matrix_rank(maps[: self.maps]).float().mean(dim=0) for maps in group.maps]
        return mean_over_layers(ranks)

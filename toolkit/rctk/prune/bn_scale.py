"""Channels by the scale that BatchNorm gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rctk.prune.criterion import ChannelGroup, Need, mean_over_layers


@dataclass(frozen=True, kw_only=True)
class BnScale:
    """Magnitude of the BatchNorm scale, averaged over the BatchNorms on the channel; made for ``prune.slimming``.

    Reference:
        Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017.
        https://arxiv.org/abs/1708.06519
    """

    need: ClassVar[Need] = "gains"

    def __call__(self, group: ChannelGroup) -> Tensor:
        """Return ``(C,)``."""
        return mean_over_layers([gain.abs() for gain in group.gains])

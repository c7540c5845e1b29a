"""Channels by the first-order change of the loss when they are taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rctk.prune.criterion import ChannelGroup, Need


@dataclass(frozen=True, kw_only=True)
class Taylor:
    """Mean over minibatches of the absolute derivative of the loss with respect to a factor on the channel.

    A factor of 0 removes the channel, so the derivative at 1 is the change of the loss to first order. It is taken
    where the channel is read, after BatchNorm and activation.

    Reference:
        Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017, equation
        8. https://arxiv.org/abs/1611.06440
    """

    need: ClassVar[Need] = "slopes"

    def __call__(self, group: ChannelGroup) -> Tensor:
        """Return ``(C,)``."""
        assert group.slopes is not None
        return group.slopes.abs().mean(dim=0)

"""Channels by how far the predictions move without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rctk.prune.criterion import ChannelGroup, Need


@dataclass(frozen=True, kw_only=True)
class Kl:
    """Kullback-Leibler divergence from the class probabilities of the whole network to those without the channel.

    Every channel takes a forward pass over the images, so this is the slowest criterion.

    Reference:
        Luo and Wu, "Neural Network Pruning with Residual-Connections and Limited-Data", CVPR 2020.
        https://arxiv.org/abs/1911.08114
    """

    need: ClassVar[Need] = "removal"

    def __call__(self, group: ChannelGroup) -> Tensor:
        """Return ``(C,)``, mean over images, in nats."""
        assert group.logits is not None
        assert group.without is not None
        scores = [divergence(group.logits, group.without(channel)) for channel in range(group.channels)]
        return torch.stack(scores)


def divergence(logits: Tensor, other: Tensor) -> Tensor:
    """Return the mean KL divergence from the distribution of ``logits`` to that of ``other``, both ``(N, K)``."""
    first, second = F.log_softmax(logits, dim=1), F.log_softmax(other, dim=1)
    return F.kl_div(second, first, reduction="batchmean", log_target=True).clamp_min(0)

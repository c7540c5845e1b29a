"""Channels in random order: what any criterion must beat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rctk.prune.criterion import ChannelGroup, Need


@dataclass(frozen=True, kw_only=True)
class AtRandom:
    """Uniformly random scores; channels whose filters are all zero come first all the same.

    Attributes:
        seed: Another seed gives another order; every group has its own.
    """

    need: ClassVar[Need] = "weights"

    seed: int = 0

    def __call__(self, group: ChannelGroup) -> Tensor:
        """Return ``(C,)``."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {group.name}".encode()))
        alive = torch.stack([weight.abs().sum(dim=1) for weight in group.producers]).sum(dim=0) > 0
        draws = torch.rand(group.channels, generator=generator) + torch.finfo(torch.float32).tiny
        return draws.to(alive.device) * alive

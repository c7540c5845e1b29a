"""Which images a process sees, and in which order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rctk.data.split import Split


def seed_of(*numbers: int) -> int:
    """Mix numbers, such as seed, epoch and process, into the seed of a generator of their own.

    Every epoch draws from fresh generators, so a resumed run needs none of the old ones.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of every batch that one of several processes computes.

    Attributes:
        rank: Number of this process, from 0.
        ranks: How many there are.
        device: Where its batches go.
        channels_last: Memory format of the images.
    """

    rank: int
    ranks: int
    device: torch.device
    channels_last: bool

    def shuffled(self, split: Split, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this share of all images in random order; whole batches have at most ``size``, and differ by one."""
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
        for rows in order.tensor_split(steps_of(split, size)):
            yield self.put(split, rows[self.rank :: self.ranks])

    def in_order(self, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this share of all images, ``size`` at a time."""
        for rows in torch.arange(len(split))[self.rank :: self.ranks].split(size):
            yield self.put(split, rows)

    def put(self, split: Split, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return images ``(n, C, H, W)`` and labels ``(n,)`` on the device."""
        x = torch.from_numpy(split.images[rows.numpy()]).to(self.device)
        y = torch.from_numpy(split.labels[rows.numpy()]).to(self.device)
        return self.laid_out(x), y

    def laid_out(self, x: Tensor) -> Tensor:
        """Return images in the memory format of the run; an augmentation may have changed it."""
        return x.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)


def steps_of(split: Split, size: int) -> int:
    """Return the number of batches in an epoch."""
    return math.ceil(len(split) / size)


def lay_out(module: nn.Module, *, channels_last: bool) -> None:
    """Put the weights of convolutions into the memory format of the images."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for value in [*module.parameters(), *module.buffers()]:
        if value.ndim == 4:
            value.data = value.data.contiguous(memory_format=layout)

"""What a criterion sees and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

Need = Literal["weights", "gains", "slopes", "maps", "removal"]


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels of one width of a network: channel ``c`` of every tensor here stands or falls with the others.

    What a criterion does not ask for may be empty.

    Attributes:
        name: Of the first layer that produces the channels.
        producers: For each producing layer ``(C, D)``: the weights that make channel ``c``.
        gains: For each BatchNorm on the way ``(C,)``: its scales.
        slopes: ``(M, C)``: derivative of the mean loss of minibatch ``m`` with respect to a factor on channel ``c``, as
            its readers see it.
        maps: For each layer that reads the channels ``(N, C, H, W)``: what it reads, after BatchNorm and activation.
        labels: ``(N,)``: classes of the images behind ``maps`` and ``logits``.
        logits: ``(N, K)`` of the whole network.
        without: Returns the logits ``(N, K)`` of the network in which nobody sees channel ``c``.
    """

    name: str
    producers: tuple[Tensor, ...] = ()
    gains: tuple[Tensor, ...] = ()
    slopes: Tensor | None = None
    maps: tuple[Tensor, ...] = ()
    labels: Tensor | None = None
    logits: Tensor | None = None
    without: Callable[[int], Tensor] | None = None

    @property
    def channels(self) -> int:
        """``C``."""
        return len(self.producers[0])


class Criterion(Protocol):
    """A frozen dataclass that scores channels by how much the network would miss them.

    Attributes:
        need: The part of :class:`ChannelGroup` that it reads.
    """

    need: ClassVar[Need]

    def __call__(self, group: ChannelGroup) -> Tensor:
        """Return ``(C,)``, 0 or more: 0 for a channel that carries nothing."""
        ...


def mean_over_layers(scores: list[Tensor]) -> Tensor:
    """Return the mean of the scores ``(C,)`` that several layers give to the same channels."""
    return torch.stack(scores).mean(dim=0)

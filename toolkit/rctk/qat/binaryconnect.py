"""``quant.binaryconnect``: weights of one bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rctk.qat.bnn import SignWeight
from rctk.qat.lsq import spread
from rctk.qat.place import Spot
from rctk.qat.quantizer import ActivationQuantizer, FixedActivation, RangeWeight, WeightQuantizer
from rctk.qat.step import Qat


@dataclass(frozen=True, kw_only=True)
class BinaryConnect(Qat):
    """Weights are ``sign(w)`` of latent weights in [-1, 1], and the gradient passes everywhere.

    Activations, which the paper leaves in float, have 8 bits here, as the file has.

    Reference:
        Courbariaux et al., "BinaryConnect: Training Deep Neural Networks with binary weights during propagations",
        NeurIPS 2015, eq. 1 and algorithm 1. https://arxiv.org/abs/1511.00363
    """

    name: ClassVar[str] = "quant.binaryconnect"

    weights: int = 1
    """Bits of weight codes: 1."""
    widths: ClassVar[range] = range(1, 2)

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:  # noqa: ARG002
        """See :class:`rctk.qat.net.Method`."""
        if bits > 1:
            return RangeWeight(bits, per_channel=per_channel)
        return SignWeight(per_channel=per_channel, reach=float("inf"))

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        return FixedActivation(spread(spot, reach), spot.low, spot.high)

"""``quant.bnn``: weights and activations of one bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rctk.qat.kernel import sign
from rctk.qat.lsq import spread
from rctk.qat.place import Spot
from rctk.qat.quantizer import ActivationQuantizer, BinaryWeight, FixedActivation, RangeWeight, WeightQuantizer
from rctk.qat.step import Qat


class SignWeight(BinaryWeight):
    """-1 and 1; the gradient passes where the latent weight is at most ``reach``."""

    def __init__(self, *, per_channel: bool, reach: float = 1.0) -> None:
        super().__init__(per_channel=per_channel)
        self.reach = reach

    def quantize(self, values: Tensor) -> Tensor:
        """See :class:`rctk.qat.quantizer.Quantizer`."""
        self.clip(values)
        return sign(values, self.reach)


@dataclass(frozen=True, kw_only=True)
class Bnn(Qat):
    """Weights are ``sign(w)`` of latent weights in [-1, 1]; activations of one bit are 0 or one step.

    ``sign(u) = 2 H(u) - 1``: the step function ``H`` is the paper's sign up to a factor and a constant, which the
    BatchNorm behind the next layer takes up; padding then stands for -1. So ReLU may stay where the net has it, and 0
    is a code. The gradient of ``H`` is that of the paper's ``|u| <= 1``. Edge layers of 8 bits have ordinary grids.

    Reference:
        Hubara et al., "Binarized Neural Networks", NeurIPS 2016, section 1. https://arxiv.org/abs/1602.02830
    """

    name: ClassVar[str] = "quant.bnn"

    weights: int = 1
    """Bits of weight codes: 1."""
    activations: int = 1
    """Bits of activation codes, 1 to 8."""
    widths: ClassVar[range] = range(1, 2)

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:  # noqa: ARG002
        """See :class:`rctk.qat.net.Method`."""
        return SignWeight(per_channel=per_channel) if bits == 1 else RangeWeight(bits, per_channel=per_channel)

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        return FixedActivation(spread(spot, reach), spot.low, spot.high)

"""``quant.qat_ste``: fixed grids and straight-through gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from rctk.qat.lsq import spread
from rctk.qat.place import Spot
from rctk.qat.quantizer import ActivationQuantizer, FixedActivation, RangeWeight, WeightQuantizer
from rctk.qat.step import Qat


@dataclass(frozen=True, kw_only=True)
class QatSte(Qat):
    """Activations have the grid that calibration found; the scale of a weight follows its largest value.

    ``grad`` also shapes what an attacker's gradient sees while training; ``scaled`` multiplies the clipped gradient by
    ``1 + 0.001 sign(g) (v / s - round(v / s))`` (Lee et al., "Network Quantization with Element-wise Gradient Scaling",
    CVPR 2021, eq. 4, https://arxiv.org/abs/2104.00903).

    Reference:
        Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013.
        https://arxiv.org/abs/1308.3432
    """

    name: ClassVar[str] = "quant.qat_ste"
    widths: ClassVar[range] = range(2, 9)

    grad: Literal["identity", "clipped", "scaled"] = "clipped"
    """Gradient of rounding: 1 everywhere (identity), 0 outside the range (clipped), or scaled by the rounding error."""

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:  # noqa: ARG002
        """See :class:`rctk.qat.net.Method`."""
        return RangeWeight(bits, per_channel=per_channel, grad=self.grad)

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        return FixedActivation(spread(spot, reach), spot.low, spot.high, self.grad)

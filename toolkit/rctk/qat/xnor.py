"""``quant.xnor``: weights of one bit with a scale per output channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from rctk.qat.lsq import spread
from rctk.qat.place import Spot
from rctk.qat.quantizer import (
    ActivationQuantizer,
    BinaryWeight,
    FixedActivation,
    RangeWeight,
    WeightQuantizer,
    along_rows,
    row_mean,
)
from rctk.qat.step import Qat
from rctk_export.quantize.grid import MIN_SCALE


class _Xnor(torch.autograd.Function):
    """``alpha sign(w)``; the gradient is multiplied by ``1 / n + alpha [|w| <= 1]``."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, alpha: Tensor, count: int) -> Tensor:
        ctx.save_for_backward((w.abs() <= 1) * alpha + 1 / count)
        return torch.where(w >= 0, alpha, -alpha)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (factor,) = ctx.saved_tensors
        return grads[0] * factor, None, None


class MeanSign(BinaryWeight):
    """``mean|w| sign(w)``."""

    def scale(self, weight: Tensor) -> Tensor:
        """See :class:`rctk.qat.quantizer.WeightQuantizer`."""
        return row_mean(weight.detach().abs(), per_channel=self.per_channel).clamp_min(MIN_SCALE)

    def quantize(self, values: Tensor) -> Tensor:
        """See :class:`rctk.qat.quantizer.Quantizer`."""
        self.clip(values)
        count = values[0].numel() if self.per_channel else values.numel()
        return cast("Tensor", _Xnor.apply(values, along_rows(self.scale(values), values.ndim), count))


@dataclass(frozen=True, kw_only=True)
class Xnor(Qat):
    """Weights are ``alpha sign(w)`` with ``alpha = mean|w|`` per output channel; activations as in ``quant.bnn``.

    Reference:
        Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks", ECCV 2016,
        section 3.1. https://arxiv.org/abs/1603.05279
    """

    name: ClassVar[str] = "quant.xnor"

    weights: int = 1
    """Bits of weight codes: 1."""
    activations: int = 1
    """Bits of activation codes, 1 to 8."""
    widths: ClassVar[range] = range(1, 2)

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:  # noqa: ARG002
        """See :class:`rctk.qat.net.Method`."""
        return MeanSign(per_channel=per_channel) if bits == 1 else RangeWeight(bits, per_channel=per_channel)

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        return FixedActivation(spread(spot, reach), spot.low, spot.high)

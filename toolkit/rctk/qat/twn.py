"""``quant.twn``: ternary weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rctk.qat.lsq import spread
from rctk.qat.place import Spot
from rctk.qat.quantizer import (
    ActivationQuantizer,
    FixedActivation,
    RangeWeight,
    WeightQuantizer,
    along_rows,
    row_mean,
)
from rctk.qat.step import Qat
from rctk_export.quantize.grid import MIN_SCALE

THRESHOLD = 0.7


class TernaryWeight(WeightQuantizer):
    """-a, 0 and a: 0 up to 0.7 of the mean magnitude, and ``a`` the mean magnitude of the rest."""

    def __init__(self, *, per_channel: bool) -> None:
        super().__init__()
        self.per_channel = per_channel

    def signs(self, weight: Tensor) -> Tensor:
        """Return -1, 0 and 1."""
        size = weight.detach().abs()
        limit = along_rows(THRESHOLD * row_mean(size, per_channel=self.per_channel), weight.ndim)
        return torch.where(size > limit, weight.detach().sign(), 0.0)

    def scale(self, weight: Tensor) -> Tensor:
        """See :class:`rctk.qat.quantizer.WeightQuantizer`."""
        signs = self.signs(weight)
        chosen = row_mean(signs.abs(), per_channel=self.per_channel)
        total = row_mean(weight.detach() * signs, per_channel=self.per_channel)
        return (total / chosen.clamp_min(torch.finfo(chosen.dtype).tiny)).clamp_min(MIN_SCALE)

    def quantize(self, values: Tensor) -> Tensor:
        """See :class:`rctk.qat.quantizer.Quantizer`; the gradient passes everywhere."""
        made = self.signs(values) * along_rows(self.scale(values), values.ndim)
        return made + (values - values.detach())


@dataclass(frozen=True, kw_only=True)
class Twn(Qat):
    """Weights are -a, 0 or a; activations have the grid that calibration found.

    Reference:
        Li et al., "Ternary Weight Networks", 2016, eq. 3-6. https://arxiv.org/abs/1605.04711
    """

    name: ClassVar[str] = "quant.twn"

    weights: int = 2
    """Bits of weight codes: 2, of whose codes three are used."""
    widths: ClassVar[range] = range(2, 3)

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:  # noqa: ARG002
        """See :class:`rctk.qat.net.Method`."""
        return RangeWeight(bits, per_channel=per_channel) if bits == 8 else TernaryWeight(per_channel=per_channel)

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        return FixedActivation(spread(spot, reach), spot.low, spot.high)

"""``quant.inq``: weights become powers of two, the largest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rctk.qat.lsq import spread
from rctk.qat.place import Spot
from rctk.qat.quantizer import ActivationQuantizer, FixedActivation, RangeWeight, WeightQuantizer
from rctk.qat.step import Qat
from rctk_export.quantize.grid import MIN_SCALE
from rctk_kernels.errors import OptionError

MOST = 7
"""Powers of two that int8 codes 1 .. 64 hold."""
SHARES = (0.5, 0.75, 0.875)
"""Share of the weights that is quantized in each part of the training; all are in the end."""


def exponents(largest: float, bits: int) -> tuple[int, int]:
    """Return the least and the greatest exponent, ``n2`` and ``n1``, of a layer whose largest weight is ``largest``.

    Example:
        >>> exponents(1.0, 4)
        (-3, 0)
    """
    last = int(torch.tensor(4 * largest / 3, dtype=torch.float64).log2().floor())
    return last + 1 - min(2 ** (bits - 1) // 2, MOST), last


class PowerWeight(WeightQuantizer):
    """0 and ``+-2^n2 .. +-2^n1``, chosen once; quantized weights rest while the others are trained on.

    The codes are 0 and powers of two of the step ``2^n2``. Evaluation quantizes all weights.
    """

    fixed: Tensor
    done: Tensor

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        low, self.count = exponents(float(weight.abs().max().clamp_min(MIN_SCALE)), bits)
        self.count = self.count - low + 1
        self.register_buffer("step", torch.tensor(2.0**low))
        self.register_buffer("fixed", torch.zeros_like(weight))
        self.register_buffer("done", torch.zeros_like(weight, dtype=torch.bool))
        self.share = SHARES[0]
        self._take(weight, self.share)
        self._next: float | None = None

    def scale(self, weight: Tensor) -> Tensor:  # noqa: ARG002  # chosen once
        """See :class:`rctk.qat.quantizer.WeightQuantizer`."""
        step: Tensor = self.step  # type: ignore[assignment]
        return step

    def nearest(self, weight: Tensor) -> Tensor:
        """Return ``+-2^n`` for ``3/4 2^n <= |w| < 3/2 2^n``, and 0 below ``2^n2 / 2``."""
        step = self.scale(weight)
        size = weight.detach().abs() / step
        power = (size * 4 / 3).clamp_min(1).log2().floor().clamp(0, self.count - 1)
        return torch.where(size >= 0.5, weight.detach().sign() * 2**power * step, 0.0)

    def _take(self, weight: Tensor, share: float) -> None:
        """Quantize the largest weights until ``share`` of all rest; in place, so that saved states see it."""
        missing = round(share * weight.numel()) - int(self.done.sum())
        if missing > 0:
            size = weight.detach().abs().masked_fill(self.done, -1.0).reshape(-1)
            new = torch.zeros_like(self.done).reshape(-1)
            new[size.topk(missing).indices] = True
            new = new.reshape(self.done.shape)
            self.fixed.copy_(torch.where(new, self.nearest(weight), self.fixed))
            self.done.logical_or_(new)

    def after_epoch(self, done: float) -> None:
        """See :class:`rctk.qat.quantizer.Quantizer`."""
        reached = min(int(done * (len(SHARES) + 1)), len(SHARES) - 1)
        self._next = SHARES[reached]

    def quantize(self, values: Tensor) -> Tensor:
        """See :class:`rctk.qat.quantizer.Quantizer`."""
        if self._next is not None and self.training:
            self._take(values, self._next)
            self._next = None
        if not self.training:
            made = torch.where(self.done, self.fixed, self.nearest(values))
            return made + (values - values.detach())
        return torch.where(self.done, self.fixed, values)


@dataclass(frozen=True, kw_only=True)
class Inq(Qat):
    """The largest half of the weights becomes powers of two and rests while the others train on, then more of them.

    ``n1 = floor(log2(4/3 max|w|))`` and ``n2 = n1 + 1 - 2^(bits - 2)``; 8-bit codes hold seven powers of two, so from 5
    bits on there are fifteen levels. One scale per layer before BatchNorm is folded.

    Reference:
        Zhou et al., "Incremental Network Quantization: Towards Lossless CNNs with Low-Precision Weights", ICLR 2017,
        eq. 2-4. https://arxiv.org/abs/1702.03044
    """

    name: ClassVar[str] = "quant.inq"
    widths: ClassVar[range] = range(2, 9)

    weights: int = 5
    """Bits of weight codes, 2 to 8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.averaging != "none":
            raise OptionError(f"{self.name} fixes weights one after the other; set averaging=none")

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        if bits == 8 and self.weights != 8:
            return RangeWeight(bits, per_channel=per_channel)  # an edge layer
        return PowerWeight(weight, bits)

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        return FixedActivation(spread(spot, reach), spot.low, spot.high)

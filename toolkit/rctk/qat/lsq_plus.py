"""``quant.lsq_plus``: learned step sizes, and learned offsets of activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rctk.qat.kernel import offset_steps, zero_point
from rctk.qat.lsq import spread
from rctk.qat.place import Spot
from rctk.qat.quantizer import (
    ActivationQuantizer,
    LearnedActivation,
    LearnedScale,
    LearnedWeight,
    WeightQuantizer,
    moved,
)
from rctk.qat.step import Qat
from rctk_export.quantize.formats import Steps
from rctk_export.quantize.grid import MIN_SCALE
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class LsqPlus(Qat):
    """LSQ for activations that can be negative, such as those of Swish: the grid begins at a learned offset.

    The offset is rounded to a whole step, since files have an integer zero point; its gradient is 1 outside the range
    and 0 inside. Tensors that are never negative begin at 0, as in LSQ. Weights begin at
    ``max|mean +- 3 std| / 2^(bits - 1)``. For ``--target cpu``: TensorRT has no zero point.

    Reference:
        Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better initialization",
        CVPR Workshops 2020, eq. 3-8. https://arxiv.org/abs/2004.09576
    """

    name: ClassVar[str] = "quant.lsq_plus"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target != "cpu":
            raise OptionError(f"{self.name} learns zero points, which {self.target} does not have; use quant.lsq")

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        rows = weight.flatten(1) if per_channel else weight.reshape(1, -1)
        mean, std = rows.mean(dim=1), rows.std(dim=1, correction=0)
        start = torch.maximum((mean - 3 * std).abs(), (mean + 3 * std).abs()) / 2 ** (bits - 1)
        if bits == 1:
            start = rows.abs().mean(dim=1)
        count = weight[0].numel() if per_channel else weight.numel()
        return LearnedWeight(start if per_channel else start[0], bits, count)

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        if spot.low == 0:
            return LearnedActivation(spread(spot, reach), spot.low, spot.high)
        last = 2**spot.bits - 1
        return OffsetActivation((reach[1] - reach[0]) / last, reach[0], last)


class OffsetActivation(ActivationQuantizer):
    """A learned scale and a learned offset.

    Args:
        start: Scale at first.
        offset: Real value of the first code at first.
        last: Codes are ``0 .. last``.
    """

    def __init__(self, start: float, offset: float, last: int) -> None:
        super().__init__()
        self.last = last
        self.learned = LearnedScale(torch.tensor(float(start)))
        self.shift = nn.Parameter(torch.tensor(float(offset) / max(float(start), MIN_SCALE)))

    def offset(self) -> Tensor:
        """Return the real value at which the grid would begin; learned in units of the first scale."""
        return moved(self.shift, self.learned.start)

    def quantize(self, values: Tensor) -> Tensor:
        """See :class:`rctk.qat.quantizer.Quantizer`."""
        features = values[0].numel() if len(values) else 1
        gain = 1 / float(np.sqrt(features * self.last))
        return offset_steps(values, self.learned(), self.offset(), self.last, gain)

    def unit(self) -> Tensor:
        """See :class:`rctk.qat.quantizer.ActivationQuantizer`."""
        scale: Tensor = self.learned()
        return scale

    def steps(self) -> Steps:
        """See :class:`rctk.qat.quantizer.ActivationQuantizer`."""
        zero = int(zero_point(self.unit(), self.offset(), self.last))
        return Steps(scale=float(self.unit().detach()), low=-zero, high=self.last - zero)

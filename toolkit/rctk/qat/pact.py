"""``quant.pact``: learned clipping levels of activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.qat.dorefa import TanhWeight
from rctk.qat.kernel import clipped_steps
from rctk.qat.lsq import spread
from rctk.qat.place import Spot
from rctk.qat.quantizer import ActivationQuantizer, FixedActivation, WeightQuantizer, held
from rctk.qat.step import Qat
from rctk_export.quantize.formats import Steps
from rctk_kernels.errors import OptionError


class ClippedActivation(ActivationQuantizer):
    """``high`` steps up to a learned level; a tensor that can be negative is clipped on both sides."""

    def __init__(self, level: float, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.level = nn.Parameter(torch.tensor(float(level)))

    def quantize(self, values: Tensor) -> Tensor:
        """See :class:`rctk.qat.quantizer.Quantizer`."""
        return clipped_steps(values, held(self.level), self.low, self.high)

    def unit(self) -> Tensor:
        """See :class:`rctk.qat.quantizer.ActivationQuantizer`."""
        return held(self.level) / self.high

    def steps(self) -> Steps:
        """See :class:`rctk.qat.quantizer.ActivationQuantizer`."""
        return Steps(scale=float(self.unit().detach()), low=self.low, high=self.high)


@dataclass(frozen=True, kw_only=True)
class Pact(Qat):
    """Activations are clipped at a level that learns from what it clips; weights are those of DoReFa.

    The level decays with ``weight_decay`` like all parameters. It begins where calibration says, or at ``alpha``.

    Reference:
        Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks", 2018, eq. 1-3.
        https://arxiv.org/abs/1805.06085
    """

    name: ClassVar[str] = "quant.pact"

    alpha: float = 0.0
    """First clipping level of activations of few bits, 10 in the paper; 0 begins where calibration says."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0:
            raise OptionError(f"{self.name}: alpha must not be negative, got {self.alpha}")

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:  # noqa: ARG002
        """See :class:`rctk.qat.net.Method`."""
        return TanhWeight(bits)

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        step = spread(spot, reach)
        if not spot.thin:
            return FixedActivation(step, spot.low, spot.high)
        return ClippedActivation(self.alpha or step * spot.high, spot.low, spot.high)

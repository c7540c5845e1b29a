"""``quant.dorefa``: weights through tanh, activations clipped to [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rctk.qat.lsq import spread
from rctk.qat.place import Spot
from rctk.qat.quantizer import ActivationQuantizer, FixedActivation, WeightQuantizer
from rctk.qat.step import Qat
from rctk_kernels.errors import OptionError


class TanhWeight(WeightQuantizer):
    """``2 round((2^k - 1) u) / (2^k - 1) - 1``, ``u = tanh w / (2 max|tanh w|) + 1/2``; one bit is ``sign(w) E|w|``.

    The codes are the odd numbers from ``-(2^k - 1)`` to ``2^k - 1``: there is no 0. For 8 bits these would not fit
    into int8; there the codes are -127 to 127. Without ``normalised`` the largest is taken to be 1.
    """

    def __init__(self, bits: int, *, normalised: bool = True) -> None:
        super().__init__()
        self.bits, self.last, self.normalised = bits, 2**bits - 1, normalised

    def scale(self, weight: Tensor) -> Tensor:
        """See :class:`rctk.qat.quantizer.WeightQuantizer`."""
        if self.bits == 1:
            return weight.detach().abs().mean().clamp_min(torch.finfo(weight.dtype).tiny)
        return weight.new_tensor(1 / (127 if self.bits == 8 else self.last))

    def quantize(self, values: Tensor) -> Tensor:
        """See :class:`rctk.qat.quantizer.Quantizer`; the gradient passes the rounding as identity."""
        step = self.scale(values)
        if self.bits == 1:
            made = torch.where(values.detach() >= 0, step, -step)
            return made + (values - values.detach())
        bent = torch.tanh(values)
        if self.normalised:
            bent = bent / bent.detach().abs().max().clamp_min(torch.finfo(values.dtype).tiny)
        flat = bent.detach()
        codes = (127 * flat).round() if self.bits == 8 else 2 * (self.last * (flat / 2 + 0.5)).round() - self.last
        return codes * step + (bent - flat)


@dataclass(frozen=True, kw_only=True)
class Dorefa(Qat):
    """Weights as tanh gives them, one scale for all; activations of few bits are ``round((2^k - 1) clip(a, 0, 1))``.

    BatchNorm behind the layers (``bn=live``) takes up that the weights change their size. Around the first and the last
    layer and in residual sums, activations have the grid that calibration found.

    ``variant=bernhard`` is that of Bernhard et al., "Impact of Low-bitwidth Quantization on the Adversarial Robustness
    for Embedded Neural Networks", CW 2019, https://arxiv.org/abs/1909.12741: tanh is not divided by its largest
    magnitude, so weights that stay small use few codes. Its activations are ``round((2^k - 1) min(1, |a|))``, the same
    where ``a`` is not negative, as behind a ReLU; elsewhere the sign is kept here, since no Q/DQ pair takes it away.

    Reference:
        Zhou et al., "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth Gradients",
        2016, eq. 5-11. https://arxiv.org/abs/1606.06160
    """

    name: ClassVar[str] = "quant.dorefa"

    reach: float = 1.0
    """Where activations of few bits are clipped; 0 clips where calibration says."""
    variant: Literal["zhou", "bernhard"] = "zhou"
    """Whether the weights of a layer are divided by their largest magnitude behind tanh (zhou) or not (bernhard)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reach < 0:
            raise OptionError(f"{self.name}: reach must not be negative, got {self.reach}")

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:  # noqa: ARG002
        """See :class:`rctk.qat.net.Method`."""
        return TanhWeight(bits, normalised=self.variant == "zhou")

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        step = self.reach / max(spot.high, -spot.low) if spot.thin and self.reach else spread(spot, reach)
        return FixedActivation(step, spot.low, spot.high)

"""``quant.lsq``: learned step sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from rctk.qat.place import Spot
from rctk.qat.quantizer import ActivationQuantizer, LearnedActivation, LearnedWeight, WeightQuantizer, row_mean
from rctk.qat.step import Qat


def spread(spot: Spot, reach: tuple[float, float]) -> float:
    """Return the step that spends all codes of ``spot`` on ``reach``."""
    return (max(reach[1], 0.0) - min(reach[0], 0.0)) / (spot.high - spot.low)


@dataclass(frozen=True, kw_only=True)
class Lsq(Qat):
    """Scales of weights and activations are trained with the network.

    ``d v_hat / d s`` is ``round(v / s) - v / s`` inside the range and the first or last code outside, times
    ``1 / sqrt(N * high)``, where ``N`` counts the weights of a scale or the features of an image. Weights begin at
    ``2 mean|v| / sqrt(high)``, activations at the range with the least squared error. One bit has the weights -1 and 1
    and the activations 0 and 1, times their scales. See :func:`rctk.qat.quantizer.moved` for how ``s`` moves.

    Reference:
        Esser et al., "Learned Step Size Quantization", ICLR 2020, eq. 1-5. https://arxiv.org/abs/1902.08153
    """

    name: ClassVar[str] = "quant.lsq"

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        size = row_mean(weight.abs(), per_channel=per_channel)
        start = size if bits == 1 else 2 * size / float(np.sqrt(2 ** (bits - 1) - 1))
        return LearnedWeight(start, bits, weight[0].numel() if per_channel else weight.numel())

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        return LearnedActivation(spread(spot, reach), spot.low, spot.high)

"""What happens behind the integer sums of a layer: a BatchNorm that folds exactly, or a bias on their grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.qat.quantizer import ActivationQuantizer, WeightQuantizer
from rctk_kernels.errors import OptionError

EPS = 1e-5
MOMENTUM = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """The grid of the integer sums of a layer.

    Attributes:
        weight: Returns the latent weight.
        weights: Its quantizer.
        inputs: Quantizer of what the layer reads.
        rounded: Whether the target stores the bias as an integer on this grid.
    """

    weight: Callable[[], Tensor]
    weights: WeightQuantizer
    inputs: ActivationQuantizer
    rounded: bool

    def nearest(self, bias: Tensor, factor: Tensor | None = None) -> Tensor:
        """Return the bias ``(O,)`` that is stored where the scale of the weight is multiplied by ``factor``."""
        if not self.rounded or self.weights.off:
            return bias
        with torch.no_grad():
            scales = self.weights.scale(self.weight())
            unit = (scales if factor is None else scales * factor.abs()) * self.inputs.unit()
            stored = (bias.double() / unit.double()).round().to(bias.dtype) * unit
            stored = torch.where(unit > 0, stored, bias)
        return bias + (stored - bias).detach()


class Affine(NamedTuple):
    """``factor * x + bias`` per channel."""

    factor: Tensor
    bias: Tensor


class LiveNorm(nn.Module):
    """BatchNorm behind a layer whose bias is 0: batch statistics while it trains, an affine map when it evaluates.

    The affine map folds into the layer without changing a code: its factor multiplies the scale of the channel, a
    negative one flips the signs of the codes, and the bias is rounded as the file will store it.

    Args:
        mean: Of the layer's output, ``(C,)``; the start of the running mean.
        var: Likewise.
        bias: Of the float layer.
        sums: Grid of the layer.
        size: Factor that the weight was multiplied by, which is taken out here.
    """

    mean: Tensor
    var: Tensor
    seen: Tensor
    frozen: Tensor

    def __init__(self, mean: Tensor, var: Tensor, bias: Tensor, sums: Sums, *, size: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", mean * size)
        self.register_buffer("var", var * size**2)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))
        self.factor = nn.Parameter((var * size**2 + EPS).sqrt() / size)  # at first all is as it was
        self.bias = nn.Parameter(mean + bias)
        self._sums = (sums,)  # a tuple, so that its quantizers are not listed here again

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, C, ...)``; :class:`OptionError` where one value per channel shall have a variance."""
        if self.training and not bool(self.frozen):
            if x.numel() == x.shape[1]:
                raise OptionError(
                    "a batch of one image has no statistics behind a layer that sees no pixels; "
                    "set batch_size=3 or more, or bn=folded"
                )
            self.seen += 1
            pace = max(MOMENTUM, 1 / float(self.seen))  # quantized statistics replace those of the float net at once
            return F.batch_norm(x, self.mean, self.var, self.factor, self.bias, training=True, momentum=pace)
        factor, bias = self.affine()
        shape = (1, -1, *[1] * (x.ndim - 2))
        return x * factor.reshape(shape) + bias.reshape(shape)

    def affine(self) -> Affine:
        """Return what folds into the layer."""
        factor = self.factor / (self.var + EPS).sqrt()
        return Affine(factor, self._sums[0].nearest(self.bias - self.mean * factor, factor))


class StoredBias(nn.Module):
    """Rounds the bias of a layer as the file will store it; the gradient passes."""

    def __init__(self, sums: Sums) -> None:
        super().__init__()
        self._sums = (sums,)

    def forward(self, bias: Tensor) -> Tensor:
        """Return the stored bias ``(O,)``."""
        return self._sums[0].nearest(bias)

"""``quant.seqmse``: weight scales with the least error at the output of each layer, layer after layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rctk.compress.step import Context, Draft
from rctk.quantize.layers import WeightLayer, draw
from rctk.quantize.reconstruct import Target, Walk
from rctk_export.quantize.formats import Formats, Weight
from rctk_export.quantize.grid import usable, weight_scales
from rctk_kernels.errors import OptionError

Scales = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SeqMse:
    """Sequential MSE: per output channel the scale whose rounded weight best reproduces the float output.

    A layer reads what the layers in front of it make of their rounded weights. Candidates are even shares of the scale
    that covers all weights. Codes stay those of rounding to nearest; ``quant.adaround`` can follow.

    Attributes:
        candidates: Scales that are tried.
        least: Smallest of them as a share of the covering scale.
        samples: Training images.
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "scales"
    candidates: int = 20
    least: float = 0.3
    samples: int = 256

    def __post_init__(self) -> None:
        if self.candidates < 2 or not 0 < self.least < 1 or self.samples < 1:
            raise OptionError("quant.seqmse needs 2 candidates or more, 0 < least < 1, and at least 1 sample")

    def __call__(self, draft: Draft, context: Context) -> Draft:
        """See :class:`rctk.compress.step.GraphStep`."""
        walk = Walk(draft, draw(context.train, self.samples, context.seed), context.seed)
        shares = np.linspace(self.least, 1, self.candidates)
        for target in walk.targets(context.progress, "weight scales"):
            layer, bits = target.layer, draft.formats.of_layer(target.layer.name)
            scales = best_scales(covering(draft.formats, layer), shares, partial(output_error, target, bits))
            draft = draft.with_formats(weights={**draft.formats.weights, layer.name: Weight(scales=scales)})
            walk.settle(layer, draft)
        return draft.noted("quant.seqmse", candidates=self.candidates, samples=len(walk.images))


def covering(formats: Formats, layer: WeightLayer) -> Scales:
    """Return the scales that cover every weight, ``(O,)`` or ``()``."""
    return weight_scales(layer.weight, 0, formats.of_layer(layer.name), per_channel=formats.per_channel)


def best_scales(largest: Scales, shares: npt.NDArray[np.float64], error: Callable[[Tensor], Tensor]) -> Scales:
    """Return per channel (or for all) the share of ``largest`` with the least error.

    Args:
        largest: ``(O,)`` or ``()``.
        shares: Ascending; of equal errors the largest share wins.
        error: Scales of its shape to errors ``(O,)``.
    """
    tried = [usable(largest * np.float32(share)) for share in shares[::-1]]
    errors = torch.stack([error(torch.from_numpy(np.asarray(scales))) for scales in tried])
    if largest.ndim == 0:
        return np.asarray(tried[int(errors.sum(dim=1).argmin())], dtype=np.float32)
    return np.asarray(np.stack(tried)[errors.argmin(dim=0).numpy(), np.arange(len(largest))], dtype=np.float32)


def output_error(target: Target, bits: int, scales: Tensor) -> Tensor:
    """Return the squared error of every output channel with weights rounded to ``scales``, ``(O,)``."""
    step = grouped_scales(scales, target)
    limit = 2 ** (bits - 1) - 1
    weight = (target.weight / step).round().clamp(-limit, limit) * step
    miss = torch.baddbmm(target.bias, target.inputs, weight) - target.wanted
    return miss.square().mean(dim=1).reshape(-1)


def weight_error(target: Target, bits: int, scales: Tensor) -> Tensor:
    """Return the squared error of the weights themselves, ``(O,)``."""
    step = grouped_scales(scales, target)
    limit = 2 ** (bits - 1) - 1
    miss = (target.weight / step).round().clamp(-limit, limit) * step - target.weight
    return miss.square().sum(dim=1).reshape(-1)


def grouped_scales(scales: Tensor, target: Target) -> Tensor:
    """Return scales so that they broadcast over ``target.weight``."""
    return scales.reshape(target.layer.groups, 1, -1) if scales.ndim else scales.reshape(1, 1, 1)
